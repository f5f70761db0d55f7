"""What choosing the best of many is worth by chance alone: the winner's curse, in points.

Of N candidates that are all worth the same, the best of their scores lies a_N SE sqrt(1 - rho) above the truth: a_N is
the expected largest of N normal numbers, SE the standard error of one candidate's difference to the reference, and rho
how far these errors agree from candidate to candidate, as what all share moves none ahead of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from core.noun import Noun

_NORMAL = NormalDist()


class Selection(Noun):
    """The estimate.

    Attributes:
        candidates: N.
        a: expected largest of N standard normal numbers.
        stderr: SE, in points: the root mean square over candidates.
        correlation: rho, from 0 to 1.
        points: what the best of N gains by chance alone.
    """

    candidates: int
    a: float
    stderr: float
    correlation: float
    points: float


def expected_largest(count: int) -> float:
    """The expected largest of `count` standard normal numbers, by Blom's approximation (1958); 0 for a single one."""
    return _NORMAL.inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def selection(differences: Sequence[Sequence[Sequence[int]]], shares: Sequence[float], count: int) -> Selection:
    """The estimate from answers.

    Args:
        differences: per candidate, per task, per item: its correctness less the reference's; the same items for all.
        shares: each task's part of the macro mean, summing to 1.
        count: candidates that the best was chosen from, those that were not scored in full included.

    Raises:
        ValueError: no candidate, or a task without items.
    """
    if not differences or any(not task for task in differences[0]):
        raise ValueError("an estimate needs a candidate and items of every task")
    each = [_variance(candidate, shares) for candidate in differences]
    single = math.fsum(each) / len(each)
    averaged = [
        [math.fsum(item) / len(differences) for item in zip(*task, strict=True)]
        for task in zip(*differences, strict=True)
    ]
    n, common = len(differences), _variance(averaged, shares)
    # The variance of a mean of n equally correlated errors is (1 + (n - 1) rho) / n of a single one's.
    rho = (n * common / single - 1) / (n - 1) if n > 1 and single > 0 else 0.0
    rho = min(1.0, max(0.0, rho))
    a, stderr = expected_largest(count), 100 * math.sqrt(single)
    return Selection(candidates=count, a=a, stderr=stderr, correlation=rho, points=a * stderr * math.sqrt(1 - rho))


def _variance(tasks: Sequence[Sequence[float]], shares: Sequence[float]) -> float:
    """Of the macro mean of item differences, by their sample variances."""
    total = 0.0
    for items, share in zip(tasks, shares, strict=True):
        n = len(items)
        mean = math.fsum(items) / n
        spread = math.fsum((value - mean) ** 2 for value in items) / max(1, n - 1)
        total += share**2 * spread / n
    return total
