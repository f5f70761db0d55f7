"""CMA-ES per structure, with restarts by growing populations and a race between the structures.

Hansen, The CMA Evolution Strategy: A Tutorial (arXiv 1604.00772), see `search.evolution`; Auger & Hansen, A Restart CMA
Evolution Strategy with Increasing Population Size (CEC 2005): a run that has converged starts again elsewhere with
twice the population; Hamano et al., CMA-ES with Margin (GECCO 2022): whole numbers never become certain; Auer,
Cesa-Bianchi & Fischer, Finite-time Analysis of the Multiarmed Bandit Problem (2002): UCB1 between structures.

Differs from the papers:

- The margin is a lower bound on the standard deviation of a whole number's coordinate, so that the chance to leave its
  cell never falls below 1 / (d lambda); the paper moves the mean as well.
- A choice of k is k coordinates, of which the highest is taken.
- Coordinates live in the unit cube and are reflected at its borders. The first mean is the uniform merge where there is
  one, else the cube's centre; later ones are uniform draws.
- A structure's worth is the mean of its best third of scores; UCB1's payoffs are those, over their range.
- No generation is waited for, see `search.replay`: a generation is its first lambda draws, further ones count as
  candidates only. Scores of stopped candidates count like others; failures rank last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.special import ndtri

from core.catalog import StrategyInfo
from core.params import ChoiceParam, FloatParam, Scalar
from core.space import SearchSpace
from search.evolution import Evolution, population
from search.history import History
from search.past import Past, past
from search.replay import normals, replay
from search.seeding import entropy
from search.strategy import Strategy
from search.unit import Cubes, Structure
from search.vector import VectorSampler

Floats = NDArray[np.float64]

#: Candidates of every structure before structures compete.
TRIED = 4
#: A run has converged when its draws differ by less than this share of every interval.
CONVERGED = 2e-3


@dataclass(frozen=True, slots=True)
class Run:
    """A generation and how many restarts came before it."""

    evolution: Evolution
    restarts: int = 0


class Course:
    """The runs of one structure.

    Args:
        structure: the cube.
        cube: its index.
        first: (size,) the point where the first run starts.
        seed: the study's.
        sigma: the first step size.
    """

    def __init__(self, structure: Structure, cube: int, first: Floats, seed: int, sigma: float) -> None:
        self._structure, self._cube, self._seed, self._sigma = structure, cube, seed, sigma
        self._owners = structure.owners
        self._choice = np.array([isinstance(hole.spec, ChoiceParam) for hole in structure.free], dtype=bool)
        mean = np.where(self._choice[self._owners], 0.5, first[self._owners])
        self._least = np.zeros(len(mean))
        for column, owner in enumerate(self._owners):
            if not self._choice[owner] and (cells := structure.cells[owner]):
                self._least[column] = _least_sd(1 / cells, 1 / (len(mean) * population(len(mean))))
        self.start = Run(Evolution.start(mean, sigma)) if len(mean) else None

    def size(self, state: Run) -> int:
        return state.evolution.size

    def draw(self, state: Run, number: int) -> dict[str, Scalar]:
        return self._structure.decode(self._folded(self._point(state, number)))

    def after(self, state: Run, members: list[int], losses: list[float]) -> Run:
        points = np.array([self._point(state, number) for number in members])
        following = state.evolution.after(points, np.array(losses))
        sds = following.sigma * np.sqrt(np.diag(following.covariance))
        if bool((sds < np.maximum(CONVERGED, self._least)).all()):
            return self._restarted(state)
        return replace(state, evolution=self._held(following, sds))

    def _restarted(self, state: Run) -> Run:
        rng = np.random.default_rng([*entropy(self._seed, -2), self._cube, state.restarts])
        mean, size = rng.random(len(state.evolution.mean)), 2 * state.evolution.size
        return Run(Evolution.start(mean, self._sigma, size), state.restarts + 1)

    def _held(self, evolution: Evolution, sds: Floats) -> Evolution:
        """With the margin: coordinates of whole numbers that became too certain are widened."""
        wider = np.maximum(1.0, self._least / np.maximum(sds, 1e-12))
        return replace(evolution, covariance=evolution.covariance * np.outer(wider, wider))

    def _point(self, state: Run, number: int) -> Floats:
        return state.evolution.rooted(normals(self._seed, number, len(state.evolution.mean)))

    def _folded(self, columns: Floats) -> Floats:
        """(size,) columns as a point of the cube."""
        found = np.empty(self._structure.size)
        for at in range(self._structure.size):
            mine = columns[self._owners == at]
            if self._choice[at]:
                found[at] = (int(mine.argmax()) + 0.5) / len(mine)
            else:
                folded = abs(float(mine[0])) % 2
                found[at] = 2 - folded if folded > 1 else folded
        return found


def _least_sd(width: float, chance: float) -> float:
    """The standard deviation at which a cell's middle is left with that chance."""
    return width / 2 / float(-ndtri(chance / 2))


class EvolutionSampler(VectorSampler):
    """A bandit over CMA-ES runs.

    Args:
        seed: the study's seed.
        space: the compiled search space.
        sigma: the first step size, in units of every interval.
    """

    def __init__(self, seed: int, space: SearchSpace, *, sigma: float) -> None:
        super().__init__(seed, space)
        self._cubes = Cubes(space)
        uniform = [self._cubes.locate(space.read(recipe)) for recipe in space.uniform()]
        starts = dict(found for found in uniform if found is not None)
        self._courses = [
            Course(structure, cube, _centre(structure, starts.get(cube)), seed, sigma)
            for cube, structure in enumerate(self._cubes.structures)
        ]

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        pasts = [trial for trial in past(study) if trial.number < number]
        by_cube: list[list[Past]] = [[] for _ in self._courses]
        for trial in pasts:
            if (cube := self._cubes.cube_of(trial.values)) is not None:
                by_cube[cube].append(trial)
        chosen = _promising(by_cube)
        course = self._courses[chosen]
        if course.start is None:
            return self._cubes.structures[chosen].decode(np.empty(0))
        return course.draw(replay(course, course.start, by_cube[chosen], self.space), number)


def _centre(structure: Structure, uniform: Floats | None) -> Floats:
    return np.full(structure.size, 0.5) if uniform is None else uniform


def _promising(by_cube: list[list[Past]]) -> int:
    """The structure to try next: by UCB1 over the means of the best thirds, each having been tried a little."""
    counts = [len(trials) for trials in by_cube]
    if min(counts) < TRIED:
        return counts.index(min(counts))
    scores = [sorted((t.score for t in trials if t.score is not None), reverse=True) for trials in by_cube]
    worth = [float(np.mean(found[: math.ceil(len(found) / 3)])) if found else -math.inf for found in scores]
    finite = [value for value in worth if value > -math.inf]
    if not finite:
        return counts.index(min(counts))
    low, width = min(finite), max(max(finite) - min(finite), 1e-9)
    total = math.log(sum(counts))
    payoffs = [
        (max(value, low) - low) / width + math.sqrt(2 * total / n) for value, n in zip(worth, counts, strict=True)
    ]
    return payoffs.index(max(payoffs))


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A CMA-ES sampler; it needs no history beyond what the study holds."""
    return EvolutionSampler(seed, space, sigma=params["sigma"])


STRATEGY = Strategy(
    info=StrategyInfo(
        name="cmaes",
        summary="CMA-ES per structure, with restarts and a race between the structures.",
        params=(
            FloatParam(
                name="sigma",
                default=0.25,
                low=0.001,
                high=1.0,
                search_low=0.05,
                search_high=0.5,
                searched=False,
                about="the first step size, as a share of every interval",
            ),
        ),
    ),
    make=make,
)
