"""The course of a search: the best score against items spent, and who came how far. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from core.records import TrialSummary
from core.states import TrialState


class Spent(NamedTuple):
    """A finished step: when it ended, and the items that it newly scored."""

    at: datetime
    items: int


class Peak(NamedTuple):
    """A candidate scored in full that was better than all before it, after so many items in all."""

    items: int
    macro: float
    number: int


class Passed(NamedTuple):
    """Candidates at a rung: that reached it, and of these that were stopped there."""

    items_per_task: int
    reached: int
    stopped: int


def best_so_far(spent: Iterable[Spent], trials: Sequence[TrialSummary]) -> tuple[Peak, ...]:
    """The leaders one after the other, candidates only, each with the items scored until its word was given.

    Args:
        spent: the steps that scored something, of parents too, in any order.
        trials: of the job; those not scored in full are no leaders.
    """
    ordered = sorted(spent)
    ends, totals = [step.at for step in ordered], [0]
    for step in ordered:
        totals.append(totals[-1] + step.items)
    scored = [t for t in trials if t.origin != "parent" and t.state is TrialState.SCORED and t.macro is not None]
    peaks: list[Peak] = []
    for trial in sorted(scored, key=lambda trial: (trial.finished_at or trial.created_at, trial.number)):
        items = totals[bisect_right(ends, trial.finished_at or trial.created_at)]
        if not peaks or (trial.macro or 0.0) > peaks[-1].macro:
            peaks.append(Peak(items, trial.macro or 0.0, trial.number))
    return tuple(peaks)


def survival(trials: Sequence[TrialSummary], rungs: Sequence[int]) -> tuple[Passed, ...]:
    """How many candidates reached each rung, and how many of them were stopped there.

    Args:
        trials: of the job; parents do not count.
        rungs: items per task, rising.
    """
    candidates = [trial for trial in trials if trial.origin != "parent"]
    found = []
    for size, following in zip(rungs, [*rungs[1:], None], strict=True):
        reached = [trial for trial in candidates if trial.scored_items >= size]
        here = [trial for trial in reached if following is None or trial.scored_items < following]
        found.append(Passed(size, len(reached), sum(trial.state is TrialState.STOPPED for trial in here)))
    return tuple(found)
