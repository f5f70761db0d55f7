"""Greedy soup: parents join a uniform soup, the best first, each only if the soup does not get worse.

Wortsman et al., Model soups (ICML 2022), recipe 1: sort by held-out accuracy, add one model at a time, keep it if the
average scores at least as well as before. Zhou et al., Model-GLUE (arXiv 2410.05357): go on by varying one coefficient.

Differs from the papers:

- A soup is expressed in the space: weight 1/k for its k ingredients, 0 (or the lowest weight searched) for the others,
  every other parameter as in the uniform merge. A space with several weighted methods gets a soup of each, one
  after the other while results are awaited. The first ingredient alone is the best parent, which is scored anyway.
- Parents are sorted by their scores on search items; those without one come last, in the job's order.
- When a soup waits for a result, or is done, candidates vary the best so far: one coordinate or a few, by steps that
  shrink with the number of candidates; every third is an evenly spread point, so that no structure is left out.
  (Model-GLUE tries a grid of nine values and, by mistake, keeps the last of them.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from core.catalog import StrategyInfo
from core.noun import canonical_json
from core.params import ChoiceParam, Scalar
from core.space import SearchSpace
from search.breeding import members, mutated
from search.history import History
from search.past import Past, past
from search.sobol import spread_point
from search.strategy import Strategy
from search.unit import Cubes
from search.vector import VectorSampler


class SoupSampler(VectorSampler):
    """A pure function of the study's trials and the parents' scores.

    Args:
        seed: the study's seed.
        space: the compiled search space.
        history: of the parents' scores.
    """

    def __init__(self, seed: int, space: SearchSpace, history: History) -> None:
        super().__init__(seed, space)
        self._history = history
        self._cubes = Cubes(space)
        uniform = [(recipe.merge, space.read(recipe)) for recipe in space.uniform()]
        self._bowls = [
            bowl for merge, values in uniform if merge and (bowl := _Bowl.of(space, values, merge.sources or ()))
        ]

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        pasts = [trial for trial in past(study) if trial.number < number]
        known: dict[str, Past] = {}
        for trial in pasts:
            known.setdefault(_key(trial.values), trial)
        for bowl in self._bowls:
            wanted = bowl.next(self._ranked(bowl.sources), self._scores(), known)
            if wanted is not None:
                return wanted
        return self._varied(pasts, number, rng)

    def _scores(self) -> dict[str, float]:
        return {parent.name: parent.heard.score for parent in self._history.parents() if parent.name is not None}

    def _ranked(self, sources: Sequence[str]) -> list[str]:
        scores = self._scores()
        return sorted(sources, key=lambda source: -scores.get(source, -1.0))

    def _varied(self, pasts: list[Past], number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        pool = members(self._cubes, pasts)
        if not pool or number % 3 == 0:
            cube, point = spread_point(self.study_seed, self._cubes.structures, number)
            return self._cubes.structures[cube].decode(point)
        best = max(pool, key=lambda member: (member.past.score or 0.0, -member.past.number))
        structure = self._cubes.structures[best.cube]
        step = 0.3 / (1 + len(pool) / 20)
        return structure.decode(mutated(structure, best.point, rng, share=1 / max(structure.size, 1), step=step))


class _Bowl:
    """One method's soup.

    Args:
        values: of its uniform merge.
        weights: names of the weights of each source.
        lowest: of each weight.
    """

    def __init__(self, values: dict[str, Scalar], weights: dict[str, list[str]], lowest: dict[str, float]) -> None:
        self._values, self._weights, self._lowest = values, weights, lowest

    @staticmethod
    def of(space: SearchSpace, values: dict[str, Scalar], sources: Sequence[str]) -> _Bowl | None:
        """None for a method that does not weigh each of its sources."""
        found: dict[str, list[str]] = {source: [] for source in sources}
        lowest: dict[str, float] = {}
        for hole in space.active(values):
            source = next((s for s in sources if f".weight.{s}." in f"{hole.name}."), None)
            if source is not None and not isinstance(hole.spec, ChoiceParam):
                found[source].append(hole.name)
                lowest[hole.name] = max(0.0, float(hole.spec.search_low))
        return _Bowl(values, found, lowest) if len(found) > 1 and all(found.values()) else None

    @property
    def sources(self) -> list[str]:
        return list(self._weights)

    def next(self, ranked: list[str], scores: dict[str, float], known: dict[str, Past]) -> dict[str, Scalar] | None:
        """The next soup to taste; None while one is being tasted, and when all have been."""
        soup, best = ranked[:1], scores.get(ranked[0], -np.inf)
        for source in ranked[1:]:
            values = self._soup([*soup, source])
            tasted = known.get(_key(values))
            if tasted is None:
                return values
            if tasted.state == "running":
                return None
            if tasted.score is not None and tasted.score >= best:
                soup, best = [*soup, source], tasted.score
        return None

    def _soup(self, ingredients: list[str]) -> dict[str, Scalar]:
        weights = {
            name: 1 / len(ingredients) if source in ingredients else self._lowest[name]
            for source, names in self._weights.items()
            for name in names
        }
        return self._values | {name: max(weight, self._lowest[name]) for name, weight in weights.items()}


def _key(values: Mapping[str, Scalar]) -> str:
    """Equal for equal candidates, whatever the last digit."""
    rounded = {name: round(value, 9) if isinstance(value, float) else value for name, value in values.items()}
    return canonical_json(dict(sorted(rounded.items())))


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A greedy-soup sampler; it looks up the parents' scores."""
    return SoupSampler(seed, space, history)


STRATEGY = Strategy(
    info=StrategyInfo(
        name="greedy-soup",
        summary="Greedy soup: the best parents averaged one by one, then coefficients around the best.",
        races=False,
    ),
    make=make,
)
