"""NSGA-II: candidates that trade tasks, layers and speed against one another, instead of one score.

Deb, Pratap, Agarwal & Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II (IEEE TEC 2002): rank by
non-dominated front, within a front by crowding distance; binary tournaments choose parents; simulated binary crossover
(Deb & Agrawal 1995) and mutation make children.

The parameter `goals` says what is traded: each task's score, or the macro `score`, and besides them `layers` (of the
stack) or `seconds` (per item), both to be small.

Differs from the paper:

- Steady state: the population is the best `population` of all candidates scored so far, and one child is bred per
  proposal, so that no worker waits for a generation.
- Coordinates are those of the structure's unit cube; parents of two structures cross in what they share, and one child
  in ten starts afresh from a Sobol point, so that no structure is lost.
- Real coordinates mutate by normal steps instead of polynomial ones, whole numbers and choices by a fresh draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from core.catalog import StrategyInfo
from core.params import ChoiceParam, FloatParam, IntParam, Scalar
from core.space import SearchSpace
from search.breeding import Member, crossed, members, mutated
from search.history import History
from search.past import past
from search.sobol import spread_point
from search.strategy import SCORE, Goal, Strategy
from search.unit import Cubes
from search.vector import VectorSampler

Floats = NDArray[np.float64]

SIZES = {"layers": Goal("layers", "minimize"), "seconds": Goal("seconds", "minimize")}
CHOICES = ("tasks", "tasks+layers", "tasks+seconds", "tasks+layers+seconds", "score+layers", "score+seconds")
#: Distribution index of the crossover: the higher, the nearer a child stays to its parents.
ETA = 15.0


class ParetoSampler(VectorSampler):
    """A steady-state NSGA-II.

    Args:
        seed: the study's seed.
        space: the compiled search space.
        population: candidates that breed.
        mutation: the share of coordinates that mutate.
    """

    def __init__(self, seed: int, space: SearchSpace, *, population: int, mutation: float) -> None:
        super().__init__(seed, space)
        self._cubes = Cubes(space)
        self._population, self._mutation = population, mutation

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        pool = [member for member in members(self._cubes, past(study)) if member.past.goals]
        starting = number < 2 * len(self._cubes.structures) or len(pool) < max(4, self._population // 4)
        if starting or rng.random() < 0.1:
            cube, point = spread_point(self.study_seed, self._cubes.structures, number)
            return self._cubes.structures[cube].decode(point)
        signs = np.array([1.0 if d == optuna.study.StudyDirection.MAXIMIZE else -1.0 for d in study.directions])
        order = ranked(np.array([member.past.goals for member in pool]) * signs)[: self._population]
        one, other = (self._tournament(pool, order, rng) for _ in range(2))
        structure = self._cubes.structures[one.cube]
        child = crossed(self._cubes, one, other, _simulated_binary, rng)
        return structure.decode(mutated(structure, child, rng, share=self._mutation, step=0.1))

    def _tournament(self, pool: list[Member], order: list[int], rng: np.random.Generator) -> Member:
        """The better of two: `order` is best first."""
        return pool[order[int(rng.integers(len(order), size=2).min())]]


def ranked(goals: Floats) -> list[int]:
    """Rows from best to worst: by front, within a front the lonelier first, then the earlier.

    Args:
        goals: (n, m), all to be high.
    """
    order: list[int] = []
    fronts = front_of(goals)
    for front in range(int(fronts.max()) + 1):
        rows = np.flatnonzero(fronts == front)
        order += rows[np.argsort(-crowding(goals[rows]), kind="stable")].tolist()
    return order


def front_of(goals: Floats) -> NDArray[np.intp]:
    """(n,) the front of each row: 0 for those that no other is at least as good as everywhere and better somewhere."""
    at_least, better = np.ones((len(goals), len(goals)), dtype=bool), np.zeros((len(goals), len(goals)), dtype=bool)
    for column in goals.T:
        at_least &= column[:, None] >= column
        better |= column[:, None] > column
    dominates = at_least & better
    fronts, left, front = np.zeros(len(goals), dtype=np.intp), np.ones(len(goals), dtype=bool), 0
    while left.any():
        free = left & ~dominates[left].any(0)
        fronts[free] = front
        left &= ~free
        front += 1
    return fronts


def crowding(goals: Floats) -> Floats:
    """(n,) how far each row's neighbours are apart, summed over goals in shares of the range; infinite at the ends."""
    distance = np.zeros(len(goals))
    for column in goals.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if width > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distance


def _simulated_binary(one: Floats, other: Floats, rng: np.random.Generator) -> Floats:
    u = rng.random(len(one))
    beta = np.where(u <= 0.5, 2 * u, 1 / (2 * (1 - u))) ** (1 / (ETA + 1))
    return np.asarray(0.5 * ((1 + beta) * one + (1 - beta) * other))


def goals(params: Mapping[str, Any], tasks: Sequence[str]) -> tuple[Goal, ...]:
    """The objectives that `goals` names; without tasks the macro score stands for them."""
    first, *sizes = str(params["goals"]).split("+")
    scores = tuple(Goal(task) for task in tasks) if first == "tasks" and tasks else SCORE
    return (*scores, *(SIZES[size] for size in sizes))


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """An NSGA-II sampler; the goals' values are in the study."""
    return ParetoSampler(seed, space, population=params["population"], mutation=params["mutation"])


STRATEGY = Strategy(
    info=StrategyInfo(
        name="nsga2",
        summary="NSGA-II: a Pareto front over tasks, layers and seconds.",
        races=False,
        params=(
            ChoiceParam(name="goals", default="tasks", choices=CHOICES, about="what is traded against what"),
            IntParam(
                name="population",
                default=32,
                low=4,
                high=1000,
                search_low=8,
                search_high=64,
                searched=False,
                about="candidates that breed",
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
    goals=goals,
)
