"""What the scores so far say about every candidate: one Gaussian process per structure, on one scale of scores.

The structures race: each has its own level and hyperparameters, all are compared in points of the score. What one of
them shows of landscapes in this study holds for the others too: the spread of scores is common, and so is the prior of
lengths, signal and nugget, which is learnt from all of them (`search.gaussian.common`). So a structure with few
results is believed to have as much room to improve as the others had, and is not dropped for having started low; one
of which nothing is known has the level of all others as its prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from core.space import SearchSpace
from search.gaussian import Data, Prior, common, fit
from search.past import Past
from search.sobol import cover
from search.unit import Cubes, Structure

Floats = NDArray[np.float64]

#: Scores further below the 90 % quantile than this are raised to it: how badly a collapsed merge failed says nothing.
CLIP = 0.15
#: Conditioning costs the cube of its number: beyond this many results the most telling ones are kept.
KEPT = 240
#: Standard deviation of the score that a failure stands for, in spreads of all scores.
DOUBT = 0.3
#: Pseudo-results with which a structure's level, and the spread within structures, are drawn towards those of all.
SHRINK = 2.0
#: Spread of scores (as shares) where none is to be seen.
NARROWEST = 0.002


@dataclass(slots=True)
class Seen:
    """What is known of one structure, as rows.

    Attributes:
        points: of the results, in the cube.
        scores, noise: of the results; a failed candidate counts as the worst score, uncertainly.
        numbers: of the trials; complete and stopped ones only count in `told`.
        told: which results are scores (not failures).
        running: points of the candidates under way.
        known: points of all trials, whatever became of them.
    """

    points: list[Floats] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)
    running: list[Floats] = field(default_factory=list)
    known: list[Floats] = field(default_factory=list)


class Scale(NamedTuple):
    """What a structure's process is fitted to.

    Attributes:
        level, spread: of the scores, around which and in units of which they are told.
        kept: which results are told.
        data: these.
    """

    level: float
    spread: float
    kept: list[int]
    data: Data


class Belief:
    """The posterior over one structure, in units of the score.

    Args:
        structure: the cube.
        seen: what is known of it.
        scale: see `Scale`.
        prior: of the hyperparameters.
    """

    def __init__(self, structure: Structure, seen: Seen, scale: Scale, prior: Prior | None) -> None:
        self.structure, self.seen, self.level, self.spread = structure, seen, scale.level, scale.spread
        self.told = np.array([k for k in scale.kept if seen.told[k]], dtype=int)
        self.process = fit(scale.data, prior)
        if seen.running:
            typical = float(np.median(scale.data.noise)) if len(scale.kept) else 0.0
            self.process = self.process.believing(structure.features(np.array(seen.running)), typical)

    def mean(self, points: Floats) -> Floats:
        """(m,) posterior mean at (m, size) points, which must be snapped."""
        return self.level + self.spread * self.process.mean(self.structure.features(points))

    def mean_and_sd(self, points: Floats) -> tuple[Floats, Floats]:
        """(m,), (m,) posterior mean and standard deviation."""
        mean, sd = self.process.mean_and_sd(self.structure.features(points))
        return self.level + self.spread * mean, self.spread * sd

    def draw(self, points: Floats, rng: np.random.Generator) -> Floats:
        """(m,) one joint posterior draw."""
        return self.level + self.spread * self.process.draw(self.structure.features(points), rng)

    def best(self) -> float:
        """The highest posterior mean among scored candidates; minus infinity where there are none."""
        if not len(self.told):
            return -math.inf
        return float(self.mean(np.array([self.seen.points[k] for k in self.told])).max())


class Surrogate:
    """Beliefs about all structures of a space.

    Args:
        cubes: the space.
        pasts: its trials.
    """

    def __init__(self, cubes: Cubes, pasts: Sequence[Past]) -> None:
        self.seen = gather(cubes, pasts)
        scales = _scales(cubes.structures, self.seen)
        prior = common([scale.data for scale in scales]) if len(scales) > 1 else None
        self.beliefs = [
            Belief(structure, seen, scale, prior)
            for structure, seen, scale in zip(cubes.structures, self.seen, scales, strict=True)
        ]

    def incumbent(self) -> float:
        """The highest posterior mean among all scored candidates: the best observed score is too lucky to beat."""
        return max(belief.best() for belief in self.beliefs)


def improvement(mean: Floats, sd: Floats, incumbent: float) -> Floats:
    """(m,) expected improvement over `incumbent` (Jones et al., Efficient Global Optimization, 1998, eq. 15)."""
    z = (mean - incumbent) / sd
    return np.asarray(sd * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))


def posterior_of(space: SearchSpace, pasts: Sequence[Past]) -> dict[int, tuple[float, float]]:
    """Posterior mean and standard deviation of every complete or stopped trial's score, by its number.

    Whatever strategy proposed them; of trials whose values are no candidate of this space nothing is said.
    """
    cubes = Cubes(space)
    found: dict[int, tuple[float, float]] = {}
    for belief in Surrogate(cubes, [p for p in pasts if p.state in ("complete", "stopped")]).beliefs:
        if belief.seen.points:
            mean, sd = belief.mean_and_sd(np.array(belief.seen.points))
            found |= {n: (float(m), float(s)) for n, m, s in zip(belief.seen.numbers, mean, sd, strict=True)}
    return dict(sorted(found.items()))


def expected_improvement(space: SearchSpace, pasts: Sequence[Past]) -> float:
    """The largest expected improvement that any candidate of the space still promises, in units of the score.

    Infinite while nothing has been scored.
    """
    surrogate = Surrogate(Cubes(space), pasts)
    incumbent = surrogate.incumbent()
    if incumbent == -math.inf:
        return math.inf
    return max(_promise(belief, incumbent) for belief in surrogate.beliefs)


def _promise(belief: Belief, incumbent: float) -> float:
    points = belief.structure.snap(candidates(belief, 256, np.random.default_rng(0)))
    return float(improvement(*belief.mean_and_sd(points), incumbent).max())


def candidates(belief: Belief, count: int, rng: np.random.Generator) -> Floats:
    """(m, size) points worth a look: spread evenly, and around the candidates with the highest posterior means.

    Args:
        count: of the even ones (a power of two); as many again lie around the best.
    """
    even = cover(belief.structure.size, count, rng)
    if not len(belief.told):
        return even
    points = np.array([belief.seen.points[k] for k in belief.told])
    best = points[np.argsort(-belief.mean(points), kind="stable")[:4]]
    return np.concatenate([even, around(best, count, rng)])


def around(centres: Floats, count: int, rng: np.random.Generator) -> Floats:
    """(count, size) perturbations of `centres`: few or many coordinates at once, by steps between tiny and large."""
    size = centres.shape[1]
    start = centres[np.arange(count) % len(centres)]
    moved = rng.random((count, size)) < np.maximum(rng.random((count, 1)), 1 / max(size, 1))
    step = 10 ** rng.uniform(-2.5, -0.5, (count, 1))
    return np.asarray(np.clip(start + moved * step * rng.standard_normal((count, size)), 0.0, 1.0))


def gather(cubes: Cubes, pasts: Sequence[Past]) -> list[Seen]:
    """The trials by structure, scores clipped; a failure that merely repeats another trial is left out."""
    floor = _floor([past.score for past in pasts if past.score is not None])
    found = [Seen() for _ in cubes.structures]
    repeated = {(at, point.tobytes()) for at, point, past in _placed(cubes, pasts) if past.state != "failed"}
    for at, point, past in _placed(cubes, pasts):
        seen, failed = found[at], past.state == "failed"
        seen.known.append(point)
        if past.state == "running":
            seen.running.append(point)
        elif past.score is not None or (failed and floor is not None and (at, point.tobytes()) not in repeated):
            worst, spread = floor or (0.0, 0.0)
            seen.points.append(point)
            seen.scores.append(max(past.score, worst) if past.score is not None else worst)
            seen.noise.append(past.variance if not failed else (DOUBT * spread) ** 2)
            seen.numbers.append(past.number)
            seen.told.append(not failed)
    return found


def _placed(cubes: Cubes, pasts: Sequence[Past]) -> list[tuple[int, Floats, Past]]:
    located = [(cubes.locate(past.values), past) for past in pasts]
    return [(*where, past) for where, past in located if where is not None]


def _floor(scores: list[float]) -> tuple[float, float] | None:
    """The lowest score that counts, and the spread of those that do; None where there are no scores."""
    if not scores:
        return None
    worst = max(float(np.quantile(scores, 0.9)) - CLIP, min(scores))
    return worst, max(float(np.std(np.maximum(scores, worst))), NARROWEST)


def _scales(structures: Sequence[Structure], every: Sequence[Seen]) -> list[Scale]:
    """Every structure's results around its own level, with few results drawn towards that of all, in a common spread.

    The spread is that within structures, drawn towards that of all scores.
    """
    joint = np.array([score for seen in every for score in seen.scores])
    level, spread = (float(joint.mean()), max(float(joint.std()), NARROWEST)) if len(joint) else (0.0, 1.0)
    within = sum(float(((np.array(seen.scores) - np.mean(seen.scores)) ** 2).sum()) for seen in every if seen.scores)
    shared = max(math.sqrt((SHRINK * spread**2 + within) / (SHRINK + len(joint))), NARROWEST)
    found = []
    for structure, seen in zip(structures, every, strict=True):
        own = float((SHRINK * level + np.sum(seen.scores)) / (SHRINK + len(seen.scores)))
        found.append(_scaled(structure, seen, own, shared))
    return found


def _scaled(structure: Structure, seen: Seen, level: float, spread: float) -> Scale:
    kept = _telling(structure, seen)
    points = np.array([seen.points[k] for k in kept]).reshape(len(kept), structure.size)
    scores, noise = np.array([seen.scores[k] for k in kept]), np.array([seen.noise[k] for k in kept])
    data = Data(structure.features(points), (scores - level) / spread, noise / spread**2, structure.owners)
    return Scale(level, spread, kept, data)


def _telling(structure: Structure, seen: Seen) -> list[int]:
    """Which results to condition on: all, or a third each of the best, the latest, and those far from all others."""
    n = len(seen.scores)
    if n <= KEPT:
        return list(range(n))
    share = KEPT // 3
    chosen = dict.fromkeys(np.argsort(-np.array(seen.scores), kind="stable")[:share].tolist())
    chosen |= dict.fromkeys(range(n - share, n))
    points = structure.features(np.array(seen.points))
    near = np.min([_squared(points, points[k]) for k in chosen], axis=0)
    near[list(chosen)] = -1.0
    while len(chosen) < KEPT:
        farthest = int(near.argmax())
        chosen[farthest] = None
        near = np.minimum(near, _squared(points, points[farthest]))
        near[farthest] = -1.0
    return sorted(chosen)


def _squared(points: Floats, point: Floats) -> Floats:
    return np.asarray(((points - point) ** 2).sum(1))
