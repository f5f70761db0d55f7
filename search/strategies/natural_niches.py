"""Natural niches: candidates compete for items, and mate with whoever answers what they do not.

Abrantes, Lange & Tang, Competition and Attraction Improve Model Fusion (M2N2, arXiv 2508.16204). With s_ij the share of
item j that candidate i gets, and z_j the sum of s_kj over the archive:

    fitness(i)       = sum_j s_ij / (z_j + eps)               an item is shared by all who answer it
    attraction(b; a) = sum_j max(s_bj - s_aj, 0) / (z_j + eps)

A child takes one part of its parents mixed by t and, beyond a split point, the other part mixed by 1 - t. It enters the
archive, whoever is then least fit leaves it.

Differs from the paper:

- The paper cuts and interpolates the parameters of the models themselves; here it is the vectors of merge values
  (weights by source and layer group, densities, ...), so every candidate remains a recipe over the job's models.
- Candidates of different methods mate in the values that they share; one child in eight is an evenly spread point.
- The archive is rebuilt from the study, in the order of numbers. Every item has capacity 1.
- Where outcomes item by item are not known, the score stands for a single item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from core.catalog import StrategyInfo
from core.params import FloatParam, IntParam, Scalar
from core.space import SearchSpace
from search.breeding import Member, crossed, members, mutated
from search.history import History
from search.past import past
from search.sobol import spread_point
from search.strategy import Strategy
from search.unit import Cubes
from search.vector import VectorSampler

Floats = NDArray[np.float64]
EPS = 1e-6


class NicheSampler(VectorSampler):
    """One child per proposal, from an archive of candidates that answer different items.

    Args:
        seed: the study's seed.
        space: the compiled search space.
        history: of outcomes item by item.
        archive: candidates kept.
        mutation: the share of a child's coordinates that mutate.
    """

    def __init__(self, seed: int, space: SearchSpace, history: History, *, archive: int, mutation: float) -> None:
        super().__init__(seed, space)
        self._cubes, self._history = Cubes(space), history
        self._kept, self._mutation = archive, mutation
        self._outcomes: dict[int, NDArray[np.float32]] = {}

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        pool = members(self._cubes, past(study))
        starting = number < 2 * len(self._cubes.structures) or len(pool) < max(4, self._kept // 4)
        if starting or rng.random() < 1 / 8:
            cube, point = spread_point(self.study_seed, self._cubes.structures, number)
            return self._cubes.structures[cube].decode(point)
        answers = self._answers(pool)
        kept = archive(answers, self._kept)
        one, other = pair(answers[kept], rng)
        structure = self._cubes.structures[pool[kept[one]].cube]
        child = crossed(self._cubes, pool[kept[one]], pool[kept[other]], _split, rng)
        return structure.decode(mutated(structure, child, rng, share=self._mutation, step=0.1))

    def _answers(self, pool: list[Member]) -> Floats:
        """(candidates, items) the share of each item that each candidate gets, over items that all have seen."""
        for known in self._history.candidates():
            if known.number is not None and known.complete and known.number not in self._outcomes:
                tasks = [np.asarray(task, dtype=np.float32) for task in self._history.correct(known)]
                if tasks:
                    self._outcomes[known.number] = np.concatenate(tasks)
        found = [self._outcomes.get(member.past.number) for member in pool]
        seen = [outcome for outcome in found if outcome is not None]
        if len(seen) < len(pool) or len({len(outcome) for outcome in seen}) != 1:
            return np.array([[max(member.past.score or 0.0, 0.0)] for member in pool])
        return np.array(seen, dtype=np.float64)


def archive(answers: Floats, size: int) -> list[int]:
    """Rows that remain when candidates enter one by one and beyond `size` the least fit of them leaves."""
    kept: list[int] = []
    for row in range(len(answers)):
        kept.append(row)
        if len(kept) > size:
            del kept[int(fitness(answers[kept]).argmin())]
    return kept


def fitness(answers: Floats) -> Floats:
    """(candidates,) what each gets of the items when an item is shared by all who answer it."""
    return np.asarray(answers @ (1 / (answers.sum(0) + EPS)))


def pair(answers: Floats, rng: np.random.Generator) -> tuple[int, int]:
    """Two rows: one drawn by fitness, its mate by attraction; uniformly where all masses are 0."""
    one = _drawn(fitness(answers), rng)
    gains = np.maximum(answers - answers[one], 0.0) @ (1 / (answers.sum(0) + EPS))
    others = np.flatnonzero(np.arange(len(answers)) != one)
    return one, int(others[_drawn(gains[others], rng)])


def _drawn(masses: Floats, rng: np.random.Generator) -> int:
    return int(rng.choice(len(masses), p=(masses + EPS) / (masses + EPS).sum()))


def _split(one: Floats, other: Floats, rng: np.random.Generator) -> Floats:
    """Up to a split point mixed by t, beyond it by 1 - t."""
    t, cut = rng.random(), rng.integers(len(one) + 1)
    share = np.where(np.arange(len(one)) < cut, t, 1 - t)
    return np.asarray((1 - share) * one + share * other)


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A natural-niches sampler; it looks up outcomes item by item."""
    return NicheSampler(seed, space, history, archive=params["archive"], mutation=params["mutation"])


STRATEGY = Strategy(
    info=StrategyInfo(
        name="natural-niches",
        summary="M2N2: an archive of candidates that answer different items, and mates by complementarity.",
        races=False,
        params=(
            IntParam(
                name="archive",
                default=20,
                low=2,
                high=1000,
                search_low=8,
                search_high=64,
                searched=False,
                about="candidates kept",
            ),
            FloatParam(
                name="mutation",
                default=0.15,
                low=0.0,
                high=1.0,
                search_low=0.05,
                search_high=0.5,
                searched=False,
                about="share of coordinates that mutate",
            ),
        ),
    ),
    make=make,
)
