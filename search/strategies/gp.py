"""Bayesian optimisation with a small Gaussian process per structure, and a race between the structures.

Jones, Schonlau & Welch, Efficient Global Optimization of Expensive Black-Box Functions (1998): fit a Gaussian process,
try the point of highest expected improvement; EI(x) = sd (z Phi(z) + phi(z)), z = (mean - incumbent) / sd. Every other
candidate is instead the highest point of a draw from the posterior (Thompson, 1933), which explores where the
hyperparameters are wrong about what is certain.

Differs from the paper:

- The noise of every score is given (the variance of the paired difference on the items seen), so candidates that were
  stopped early take part with what little they say; a nugget takes up what is not smooth.
- The incumbent is the highest posterior mean of a scored candidate: the highest score is too lucky to be beaten.
- Whole numbers and choices are rounded inside the process (Garrido-Merchan & Hernandez-Lobato, arXiv 1805.03463).
- Candidates under way are believed to score their posterior mean (Ginsbourger et al.'s kriging believer).
- Each combination of deciding choices (method, layout) has its own process, all in units of the score and with a prior
  in common that is learnt from all (`search.surrogate`): the structure with the highest improvement, or the highest
  draw, wins the candidate. Of two draws one is drawn again until another structure wins (top-two Thompson sampling,
  Russo, Simple Bayesian Algorithms for Best-Arm Identification, 2020), so that the leader's rivals are tried as long
  as any of them may be better.

The start is d + 3 scrambled Sobol points, shared out where there are several structures; known starts count. They fill
the middle half of every interval around the uniform merge, where there is one: a merge far from it rarely does well,
and the process explores the rest where that pays. Both were measured (docs/lab-notes.md). The process and its prior are
those of `search.gaussian`, failures and clipping those of `search.surrogate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr

from core.catalog import StrategyInfo
from core.params import IntParam, Scalar
from core.space import SearchSpace
from search.history import History
from search.past import Past, past
from search.sobol import sobol_point
from search.strategy import Strategy
from search.surrogate import Belief, Seen, Surrogate, candidates, gather, improvement
from search.unit import Cubes, Structure
from search.vector import VectorSampler

Floats = NDArray[np.float64]

#: Evenly spread points looked at, over all structures together; around the best ones lie as many.
LOOKS = 256
#: Width of the start around a uniform merge, as a share of every interval.
CLOSE = 0.5
#: Share of the draws that the first winner keeps, and how often a draw is repeated to find another winner.
LEADING, REDRAWS = 0.5, 8
#: How many of them are climbed from, and by how many steps.
CLIMBS, STEPS = 2, 12


class ProcessSampler(VectorSampler):
    """EI and posterior draws in turn.

    Args:
        seed: the study's seed.
        space: the compiled search space.
        start: Sobol points before the first process; 0 takes d + 3, shared out among the structures.
    """

    def __init__(self, seed: int, space: SearchSpace, *, start: int) -> None:
        super().__init__(seed, space)
        self._cubes = Cubes(space)
        located = [self._cubes.locate(space.read(recipe)) for recipe in space.uniform()]
        self._uniform = dict(where for where in located if where is not None)
        self._wanted = [_start(structure, len(self._cubes.structures), start) for structure in self._cubes.structures]

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        pasts = [trial for trial in past(study) if trial.number != number]
        seen = gather(self._cubes, pasts)
        cube, lacking = self._thinnest(seen)
        if lacking > 0 or not any(told for found in seen for told in found.told):
            return self._cubes.structures[cube].decode(self._begun(cube, len(seen[cube].known)))
        return self._informed(pasts, number, rng)

    def _begun(self, cube: int, index: int) -> Floats:
        """A point of a structure's start."""
        point = sobol_point(self.study_seed, cube, self._cubes.structures[cube].size, index)
        if cube not in self._uniform:
            return point
        return np.clip(self._uniform[cube] + CLOSE * (point - 0.5), 0.0, 1.0)

    def _thinnest(self, seen: list[Seen]) -> tuple[int, float]:
        """The structure that lacks the largest share of its start, and that share."""
        shares = [1 - len(found.known) / wanted for found, wanted in zip(seen, self._wanted, strict=True)]
        cube = max(range(len(shares)), key=lambda k: shares[k])
        return cube, shares[cube]

    def _informed(self, pasts: list[Past], number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        surrogate = Surrogate(self._cubes, pasts)
        looks = max(16, LOOKS >> math.ceil(math.log2(len(surrogate.beliefs))))
        fields = [_unseen(belief, candidates(belief, looks, rng)) for belief in surrogate.beliefs]
        open_ = [(belief, points) for belief, points in zip(surrogate.beliefs, fields, strict=True) if len(points)]
        if not open_:  # Every candidate of a small space has been tried.
            belief = surrogate.beliefs[number % len(surrogate.beliefs)]
            return belief.structure.decode(rng.random(belief.structure.size))
        if number % 2:
            values = _drawn(open_, rng)
            belief, points = open_[_highest(values)]
            return belief.structure.decode(points[int(values[_highest(values)].argmax())])
        incumbent = surrogate.incumbent()
        values = [improvement(*belief.mean_and_sd(points), incumbent) for belief, points in open_]
        belief, points = open_[_highest(values)]
        order = np.argsort(-values[_highest(values)], kind="stable")[:CLIMBS]
        return belief.structure.decode(_climbed(belief, points[order], incumbent))


def _start(structure: Structure, structures: int, start: int) -> int:
    """Points of a structure's start: its part of the whole, at least two, and no more than there are."""
    part = math.ceil((start or structure.size + 3) / structures)
    return int(min(max(part, 2), structure.count))


def _highest(values: list[Floats]) -> int:
    """Which array has the highest value."""
    return max(range(len(values)), key=lambda k: float(values[k].max()))


def _drawn(open_: list[tuple[Belief, Floats]], rng: np.random.Generator) -> list[Floats]:
    """A posterior draw of every structure's field; every other time one in which the first one's winner loses."""
    values = [belief.draw(points, rng) for belief, points in open_]
    if len(open_) == 1 or rng.random() < LEADING:
        return values
    for _ in range(REDRAWS):
        others = [belief.draw(points, rng) for belief, points in open_]
        if _highest(others) != _highest(values):
            return others
    return values


def _unseen(belief: Belief, points: Floats) -> Floats:
    """Snapped points that no trial has had, each once."""
    known = {_key(point) for point in belief.seen.known}
    fresh = {_key(point): point for point in belief.structure.snap(points)}
    found = [point for key, point in fresh.items() if key not in known]
    return np.array(found).reshape(len(found), belief.structure.size)


def _key(point: Floats) -> bytes:
    # Values and back again changes the last digits.
    return np.round(point, 9).tobytes()


def _climbed(belief: Belief, starts: Floats, incumbent: float) -> Floats:
    """The best point found by climbing the improvement's logarithm over the real coordinates."""
    free = belief.structure.continuous
    if not free.any():
        return np.asarray(starts[0])
    columns = np.searchsorted(belief.structure.owners, np.flatnonzero(free))
    target = (incumbent - belief.level) / belief.spread
    best, lowest = starts[0], math.inf
    for start in starts:
        row = belief.structure.features(start[None])[0]
        found = minimize(
            _loss,
            start[free],
            (belief, row, columns, target),
            "L-BFGS-B",
            jac=True,
            bounds=[(0.0, 1.0)] * int(free.sum()),
            options={"maxiter": STEPS},
        )
        if found.fun < lowest:
            best, lowest = start.copy(), float(found.fun)
            best[free] = found.x
    return np.asarray(best)


def _loss(x: Floats, belief: Belief, row: Floats, columns: NDArray[np.intp], target: float) -> tuple[float, Floats]:
    """Minus the logarithm of the expected improvement, and its gradient."""
    point = row.copy()
    point[columns] = x
    mean, sd, by_mean, by_sd = belief.process.slope(point)
    z = (mean - target) / sd
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    gain = max(sd * (z * float(ndtr(z)) + density), 1e-300)
    slope = (float(ndtr(z)) * by_mean + density * by_sd) / gain
    return -math.log(gain), -slope[columns]


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A Gaussian-process sampler; scores and variances are in the study."""
    return ProcessSampler(seed, space, start=params["start"])


STRATEGY = Strategy(
    info=StrategyInfo(
        name="gp",
        summary="A Gaussian process per structure: expected improvement and posterior draws in turn.",
        params=(
            IntParam(
                name="start",
                default=0,
                low=0,
                high=10_000,
                search_low=0,
                search_high=100,
                searched=False,
                about="evenly spread candidates to start with, over all structures; 0: one per parameter and 3",
            ),
        ),
    ),
    make=make,
)
