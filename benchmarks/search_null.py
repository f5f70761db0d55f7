"""How often the service says `gain` where there is none: searches among candidates that differ, and are all as good.

Candidates are small perturbations of a real one that disagree with it on about 3 % of the items. In every replay each
item's answer key is exchanged at random, for all candidates alike: on what two candidates disagree, either is right
with the same probability, so none is better than another, and whatever a search finds is luck. The best parent is
chosen and the finalists are ranked on search items; the verdict on held-out items is the service's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from benchmarks.claims import Report
from benchmarks.search_matrix import Floats, Matrix
from core.outcomes import Outcomes
from core.statistics import confirm

REPLAYS, CANDIDATES, PARENTS, FINALISTS = 2000, 40, 3, 3
DISCORDANT = 0.03
CENTRES = 20

Signs = NDArray[np.float64]


def perturbed(matrix: Matrix, centre: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Candidates around a point at the distance where they disagree with it on about 3 % of the items.

    Returns:
        (1 + candidates, tasks, items) margins on search and held-out items, the centre first; the share of search
        items on which a candidate disagrees with the centre.
    """
    directions = rng.normal(size=(CANDIDATES + PARENTS, len(centre)))
    directions *= matrix.width / np.linalg.norm(directions, axis=1, keepdims=True)
    low, high = 0.0, 0.3
    for _ in range(12):
        scale = (low + high) / 2
        found = _margins(matrix, np.vstack([centre, centre + scale * directions]))
        share = float(((found[0][1:] > 0) != (found[0][:1] > 0)).mean())
        low, high = (scale, high) if share < DISCORDANT else (low, scale)
    return *found, share


def _margins(matrix: Matrix, wanted: Floats) -> tuple[Floats, Floats]:
    values = [dict(zip(matrix.names, map(float, point), strict=True)) for point in wanted]
    return (
        np.array([matrix.at(point) for point in values]),
        np.array([matrix.at(point, held_out=True) for point in values]),
    )


def exchanged(margins: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Correctness under an answer key in which every item's label was exchanged or not, at random."""
    signs = rng.choice((-1.0, 1.0), size=margins.shape[1:])
    return np.asarray(margins * signs > 0)


def verdict(search: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> str:
    """The service's verdict over candidates of which the first `PARENTS` are the parents."""
    macro = search.mean(axis=(1, 2))
    reference = int(np.argmax(macro[:PARENTS]))
    ranked = PARENTS + np.argsort(-macro[PARENTS:], kind="stable")[:FINALISTS]
    tasks, shares = [f"task_{k}" for k in range(search.shape[1])], [1 / search.shape[1]] * search.shape[1]
    found = confirm(
        [(f"candidate {index}", _outcomes(held_out[index])) for index in ranked],
        ("parent", _outcomes(held_out[reference])),
        tasks,
        shares,
    )
    return str(found.verdict)


def _outcomes(correct: NDArray[np.bool_]) -> list[Outcomes]:
    numbers = tuple(range(correct.shape[1]))
    return [Outcomes(numbers, tuple(map(int, task)), (0.0,) * len(numbers)) for task in correct]


def upper_bound(hits: int, trials: int, level: float = 0.95) -> float:
    """The one-sided Clopper-Pearson bound of a probability."""
    return 1.0 if hits == trials else float(beta.ppf(level, hits + 1, trials - hits))


def false_gains(matrix: Matrix, replays: int, seed: int) -> tuple[int, float, float]:
    """Replays that end in `gain`, the mean share of discordant items, and the mean gain on search items, in points."""
    rng = np.random.default_rng([seed, 2026])
    hits, shares, gains = 0, [], []
    for place in range(CENTRES):
        centre = matrix.points[rng.integers(len(matrix.points))]
        search, held_out, share = perturbed(matrix, centre, rng)
        shares.append(share)
        for _ in range(replays // CENTRES + (place < replays % CENTRES)):
            right, proof = exchanged(search, rng), exchanged(held_out, rng)
            macro = right.mean(axis=(1, 2))
            gains.append(100 * float(macro[PARENTS:].max() - macro[:PARENTS].max()))
            hits += verdict(right, proof) == "gain"
    return hits, float(np.mean(shares)), float(np.mean(gains))


def report_null(report: Report, matrix: Matrix, replays: int = REPLAYS) -> None:
    """Claim the bound on false gains.

    Args:
        report: takes the claim.
        matrix: real candidates.
        replays: searches without anything to find.
    """
    hits, share, gain = false_gains(matrix, replays, seed=0)
    report.claim("null: false gains, upper 95 % bound", upper_bound(hits, replays), "of 1", goal=0.05, better="lower")
    report.claim("null: false gains", hits / replays, "of 1")
    report.claim("null: discordant items", share, "of 1")
    report.claim("null: gain of the luckiest on search items", gain, "points")
    report.note(f"null: {hits} of {replays} replays ended in gain; nominal level 0.025, one-sided")
