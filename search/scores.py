"""What a sampler hears of a candidate: the reference's mean plus the mean paired difference, from smoothed margins.

0/1 correctness moves in steps of one item and says nothing of how near the others are; the log-likelihood margin does.
Each margin m becomes Phi(m / h), the probability that it stays positive under a little normal noise, with h a quarter
of the candidate's median |m|: a share of 1 - or + for what is settled, in between for what could fall either way.

Candidates are compared with one reference, item by item, along the study's one order: what the items have in common
(their difficulty) falls out of the difference, so that a short prefix tells nearly as much as a long one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

#: The noise under which a margin is smoothed, in medians of |margin|.
SOFTNESS = 0.25


@dataclass(frozen=True, slots=True)
class Heard:
    """A candidate's score as a sampler hears it.

    Attributes:
        score: the macro mean as a share, near [0, 1].
        variance: of the score's estimate by its items; 0 only where the score is exact (the reference itself).
        items: outcomes behind it, over all tasks.
        tasks: the same score task by task, for strategies with several objectives.
    """

    score: float
    variance: float
    items: int
    tasks: tuple[float, ...] = field(default=())


def smooth(margins: Floats) -> Floats:
    """Margins as shares in (0, 1); all at one half where every margin is 0.

    Args:
        margins: (items,), in nats, length-normalised where the metric is.
    """
    softness = SOFTNESS * float(np.median(np.abs(margins))) if len(margins) else 0.0
    if softness <= 0.0:
        return 0.5 + 0.5 * np.sign(margins)
    return np.asarray(ndtr(margins / softness), dtype=np.float64)


def paired(candidate: Sequence[Floats], reference: Sequence[Floats], shares: Sequence[float]) -> Heard:
    """The score of a candidate that has seen a prefix of what the reference has seen.

    Args:
        candidate: per task (n,) values in [0, 1] along the study's order: smoothed margins, or correctness.
        reference: per task (N,), N >= n, of the reference on all search items.
        shares: each task's part of the macro mean, summing to 1.

    Raises:
        ValueError: no task, a task without items, or one of which the reference has seen less than the candidate.
    """
    if not candidate or not len(candidate) == len(reference) == len(shares):
        raise ValueError(
            f"every task needs outcomes of both and a share, but there are {len(candidate)}, {len(reference)} and "
            f"{len(shares)}"
        )
    means, variances = [], []
    for ours, theirs in zip(candidate, reference, strict=True):
        if not 0 < len(ours) <= len(theirs):
            raise ValueError(
                f"the reference must have seen all that the candidate has, and that something, but they have "
                f"{len(theirs)} and {len(ours)} items: score the reference in full first"
            )
        difference = ours - theirs[: len(ours)]
        means.append(float(theirs.mean() + difference.mean()))
        variances.append(_variance_of_mean(difference))
    score = math.fsum(share * mean for share, mean in zip(shares, means, strict=True))
    variance = math.fsum(share**2 * variance for share, variance in zip(shares, variances, strict=True))
    return Heard(score, variance, sum(map(len, candidate)), tuple(means))


def plain(candidate: Sequence[Floats], shares: Sequence[float]) -> Heard:
    """The macro mean of correctness with its binomial variance, for strategies that hear nothing else.

    Args:
        candidate: per task (n,) of 0 and 1.
        shares: each task's part of the macro mean, summing to 1.
    """
    means = [float(task.mean()) for task in candidate]
    score = math.fsum(share * mean for share, mean in zip(shares, means, strict=True))
    variance = math.fsum(share**2 * _variance_of_mean(task) for share, task in zip(shares, candidate, strict=True))
    return Heard(score, variance, sum(map(len, candidate)), tuple(means))


def _variance_of_mean(values: Floats) -> float:
    """Sample variance (n - 1) over n; one item tells nothing of the spread and gets that of a fair coin."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.25
