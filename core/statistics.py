"""Score statistics: standard errors, exact McNemar, paired differences, and the verdict of a confirmation.

Two candidates answer the same questions, so only the questions on which they disagree speak. Everything here works on
those: `b` questions that the first got right and the second wrong, `c` the other way round, among `n` in common.

Intervals are paired normal intervals with the adjustment of Bonett & Price (Adjusted Wald confidence interval for a
difference of binomial proportions based on paired data, J. Educ. Behav. Stat. 37, 2012): one disagreement each way is
added to every task. It is invisible where many questions disagree, and it keeps four lucky questions out of a thousand
from passing for a gain, which the plain normal interval does (its variance shrinks with the evidence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from core.noun import Noun
from core.outcomes import Outcomes

#: One-sided level of the confirmation (law 5).
ALPHA = 0.025

_NORMAL = NormalDist()


def mean(correct: Sequence[int]) -> float:
    """The share of ones.

    Raises:
        ValueError: there is nothing to average.
    """
    if not correct:
        raise ValueError("a mean needs at least one item: score some first")
    return math.fsum(correct) / len(correct)


def stderr(correct: Sequence[int]) -> float:
    """The standard error of a mean of zeros and ones, with n - 1 below the sum of squares (as lm-eval's mean_stderr).

    One item tells nothing of the spread: it gets 0.5, the most a proportion can have.
    """
    share, n = mean(correct), len(correct)
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else 0.5


@dataclass(frozen=True, slots=True)
class McNemar:
    """P-values of the exact test: `one_sided` of the first not being better, `two_sided` of no difference."""

    one_sided: float
    two_sided: float


def mcnemar_exact(b: int, c: int) -> McNemar:
    """McNemar's exact test: under the null the b + c disagreements fall like fair coins.

    Args:
        b: items that the first has right and the second wrong.
        c: items that the second has right and the first wrong.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts of disagreements must be at least 0, but got {b!r} and {c!r}")
    n = b + c
    upper = _coin_tail(n, b)
    lower = _coin_tail(n, c)
    return McNemar(one_sided=upper, two_sided=min(1.0, 2 * min(upper, lower)))


def _coin_tail(n: int, at_least: int) -> float:
    """P(at least so many heads of n fair coins), in exact integers until the last division."""
    term = total = math.comb(n, at_least)
    for k in range(at_least, n):
        term = term * (n - k) // (k + 1)
        total += term
    return total / (1 << n)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The difference of two candidates on one task's common items.

    Attributes:
        n: items in common.
        mean: mean of (first correct - second correct), as a share in [-1, 1].
        variance_of_mean: sample variance (n - 1) of the item differences, over n; 0 for a single item.
        b, c: items that only the first, only the second has right.
    """

    n: int
    mean: float
    variance_of_mean: float
    b: int
    c: int

    @property
    def adjusted(self) -> tuple[float, float]:
        """Mean and variance of the mean with one disagreement added each way (Bonett & Price 2012)."""
        total = self.n + 2
        centre = (self.b - self.c) / total
        return centre, ((self.b + self.c + 2) / total - centre**2) / total


def paired_difference(first: Outcomes, second: Outcomes) -> PairedDifference:
    """The difference on the items that both have.

    Raises:
        ValueError: no item is in both.
    """
    other = dict(zip(second.numbers, second.correct, strict=True))
    pairs = [(a, other[n]) for n, a in zip(first.numbers, first.correct, strict=True) if n in other]
    if not pairs:
        raise ValueError("the two have no items in common: score both along the study's one order")
    n, b, c = len(pairs), sum(x > y for x, y in pairs), sum(x < y for x, y in pairs)
    centre = (b - c) / n
    variance = (b + c - n * centre**2) / (n - 1) if n > 1 else 0.0
    return PairedDifference(n, centre, max(variance, 0.0) / n, b, c)


@dataclass(frozen=True, slots=True)
class MacroDifference:
    """The weighted mean difference over tasks, in percentage points.

    Attributes:
        points: the difference as observed.
        low, high: the paired 95 % interval (adjusted, see the module).
        p_one_sided: of the first not being better; at most alpha exactly where `low` is at least 0.
        p_worse: of the first not being worse; at most alpha exactly where `high` is at most 0.
    """

    points: float
    low: float
    high: float
    p_one_sided: float
    p_worse: float


def macro_difference(
    per_task: Sequence[PairedDifference], shares: Sequence[float], *, alpha: float = ALPHA
) -> MacroDifference:
    """The difference of two macro means with its paired interval.

    Args:
        per_task: differences, task by task.
        shares: each task's part of the macro mean, summing to 1.
        alpha: one-sided level; the interval covers 1 - 2 alpha.

    Raises:
        ValueError: there are no tasks, or not one share per task.
    """
    if not per_task or len(per_task) != len(shares):
        raise ValueError(f"every task needs one share, but got {len(per_task)} tasks and {len(shares)} shares")
    points = 100 * math.fsum(share * task.mean for share, task in zip(shares, per_task, strict=True))
    adjusted = [task.adjusted for task in per_task]
    centre = math.fsum(share * mean_ for share, (mean_, _) in zip(shares, adjusted, strict=True))
    error = math.sqrt(math.fsum(share**2 * var for share, (_, var) in zip(shares, adjusted, strict=True)))
    reach = _NORMAL.inv_cdf(1 - alpha) * error
    # Identical answers are no evidence at all: p is 1, as in the exact test.
    differ = any(task.b or task.c for task in per_task)
    return MacroDifference(
        points=points,
        low=max(-100.0, 100 * (centre - reach)),
        high=min(100.0, 100 * (centre + reach)),
        p_one_sided=_tail(centre / error) if differ else 1.0,
        p_worse=_tail(-centre / error) if differ else 1.0,
    )


def _tail(z: float) -> float:
    """The upper tail of the normal distribution, exact far out, where 1 - cdf would be 0."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def shown_p(p: float) -> str:
    """A p-value as people should read it: below 1e-12 the model of the error is what limits it."""
    return f"p = {p:.2g}" if p >= 1e-12 else "p < 1e-12"


@dataclass(frozen=True, slots=True)
class FloorTest:
    """Whether a loss stays above a floor, in percentage points.

    Attributes:
        points: the difference as observed.
        low: one-sided lower bound of the difference (adjusted, see the module).
        p_one_sided: of the loss being at least the floor.
        kept: `proven` that the loss is smaller, `broken` if it is proven to be larger, else `open`.
    """

    points: float
    low: float
    p_one_sided: float
    kept: Literal["proven", "open", "broken"]


def floor_test(difference: PairedDifference, floor: float, *, alpha: float = ALPHA) -> FloorTest:
    """Test a task's difference against the most that may be lost on it.

    Args:
        difference: of winner and reference.
        floor: percentage points that may be lost, at least 0.
        alpha: one-sided level.
    """
    centre, variance = difference.adjusted
    error = math.sqrt(variance)
    z = (centre + floor / 100) / error
    p = _tail(z)
    return FloorTest(
        points=100 * difference.mean,
        low=max(-100.0, 100 * (centre - _NORMAL.inv_cdf(1 - alpha) * error)),
        p_one_sided=p,
        kept="proven" if p <= alpha else "broken" if _tail(-z) <= alpha else "open",
    )


def fixed_sequence(p_values: Sequence[float], alpha: float = ALPHA) -> tuple[bool, ...]:
    """Which hypotheses are rejected when they are tested in order, each at full alpha, until the first that is not.

    The order must be fixed before any p-value is seen; then the chance of any false rejection is at most alpha.
    """
    rejected: list[bool] = []
    for p in p_values:
        rejected.append(p <= alpha and all(rejected))
    return tuple(rejected)


class TaskComparison(Noun):
    """One task of a comparison: points of difference on n items, disagreements each way, exact McNemar."""

    task: str
    n: int
    points: float
    b: int
    c: int
    p_two_sided: float


class Comparison(Noun):
    """A finalist against the reference on held-out items.

    Attributes:
        candidate: the finalist's name.
        points, low, high: macro difference and its 95 % interval, in percentage points.
        p_one_sided: of the finalist not being better.
        tested: whether the sequence reached it (an earlier one that fails ends the testing).
        gain: whether it is proved better.
    """

    candidate: str
    points: float
    low: float
    high: float
    p_one_sided: float
    tested: bool
    gain: bool
    tasks: tuple[TaskComparison, ...]


class Verdict(Noun):
    """What a confirmation proved.

    Attributes:
        verdict: `gain` if the first-ranked finalist is proved better than the reference, `worse` if it is proved
            worse, else `no gain`.
        reference: what finalists were compared with (the best parent by search items).
        winner: the proved finalist; None without a gain.
        points, low, high, p_one_sided: of the first-ranked finalist; None where there was none.
        comparisons: every finalist, in rank order.
    """

    verdict: Literal["gain", "no gain", "worse"]
    reference: str
    winner: str | None = None
    alpha: float = ALPHA
    points: float | None = None
    low: float | None = None
    high: float | None = None
    p_one_sided: float | None = None
    comparisons: tuple[Comparison, ...] = ()


#: A name and its held-out outcomes, task by task.
Candidate = tuple[str, Sequence[Outcomes]]


def confirm(
    finalists: Sequence[Candidate],
    reference: Candidate,
    tasks: Sequence[str],
    shares: Sequence[float],
    *,
    alpha: float = ALPHA,
) -> Verdict:
    """The verdict over finalists, ranked on search items before held-out was opened.

    The winner is the first-ranked finalist, never the best by held-out score: its interval then has no selection in
    it. Later finalists are tested in sequence only to say whether they, too, are gains.

    Raises:
        ValueError: a finalist shares no items with the reference on some task.
    """
    name, outcomes = reference
    per_task = [
        [paired_difference(ours, theirs) for ours, theirs in zip(found, outcomes, strict=True)]
        for _, found in finalists
    ]
    macros = [macro_difference(differences, shares, alpha=alpha) for differences in per_task]
    gains = fixed_sequence([macro.p_one_sided for macro in macros], alpha)
    comparisons = tuple(
        _comparison(candidate, macro, gain, all(gains[:rank]), tasks, differences)
        for rank, ((candidate, _), macro, gain, differences) in enumerate(
            zip(finalists, macros, gains, per_task, strict=True)
        )
    )
    if not comparisons:
        return Verdict(verdict="no gain", reference=name, alpha=alpha)
    first, macro = comparisons[0], macros[0]
    return Verdict(
        verdict="gain" if first.gain else "worse" if macro.p_worse <= alpha else "no gain",
        reference=name,
        winner=first.candidate if first.gain else None,
        alpha=alpha,
        points=first.points,
        low=first.low,
        high=first.high,
        p_one_sided=first.p_one_sided,
        comparisons=comparisons,
    )


def _comparison(
    candidate: str,
    macro: MacroDifference,
    gain: bool,
    tested: bool,
    tasks: Sequence[str],
    differences: Sequence[PairedDifference],
) -> Comparison:
    return Comparison(
        candidate=candidate,
        points=macro.points,
        low=macro.low,
        high=macro.high,
        p_one_sided=macro.p_one_sided,
        tested=tested,
        gain=gain,
        tasks=tuple(
            TaskComparison(
                task=task,
                n=d.n,
                points=100 * d.mean,
                b=d.b,
                c=d.c,
                p_two_sided=mcnemar_exact(d.b, d.c).two_sided,
            )
            for task, d in zip(tasks, differences, strict=True)
        ),
    )
