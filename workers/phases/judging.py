"""The word on candidates that have been scored up to their target."""

from __future__ import annotations

from collections.abc import Sequence

from core.records import TrialBrief
from core.states import TrialState
from search.finalists import PARENT
from search.racing import Decision, Standing, beaten, decide, raised_unheard
from store import trials
from store.session import Session
from workers.phases.study import Search

#: Origin of a trial that scores a stopped candidate in full.
COMPLETED = "completed"
ACTIVE = (TrialState.QUEUED, TrialState.RUNNING, TrialState.WAITING)


def under_way(trial: TrialBrief) -> bool:
    """Whether a runner has something to do for it, or does it now; one that waits for a word keeps nobody busy."""
    waits = trial.state is TrialState.WAITING and trial.scored_items >= trial.target_items
    return trial.state in ACTIVE and not waits


def judge(
    session: Session, search: Search, every: Sequence[TrialBrief], reference: TrialBrief | None, *, ready: bool
) -> bool:
    """The word on every waiting candidate (parents have a race of their own); whether any trial changed.

    Args:
        session: a transaction.
        search: the job.
        every: all its trials, what can be heard of them heard.
        reference: the one that others are compared with.
        ready: whether candidates are heard yet. Until then only those go on that would whatever their score.
    """
    changed = False
    # One that was raised and that no runner has taken yet waits still, but has had its word.
    for trial in (t for t in _waiting(every) if not under_way(t)):
        whole = reference is not None and trial.id == reference.id
        decision, rung = _word(search, trial, every, whole=whole, ready=ready)
        if decision is Decision.FINISH:
            trials.move(session, trial.id, TrialState.SCORED)
        elif decision is Decision.RAISE:
            trials.raise_target(session, trial.id, search.rungs[rung], rung, search.device)
        elif decision is Decision.STOP:
            trials.move(session, trial.id, TrialState.STOPPED)
        changed |= decision is not None
    return changed


def _word(
    search: Search, trial: TrialBrief, every: Sequence[TrialBrief], *, whole: bool, ready: bool
) -> tuple[Decision | None, int]:
    """What happens to a candidate, and the rung it is raised to; None while nothing can be said."""
    passed = [rung for rung, size in enumerate(search.rungs) if size <= trial.scored_items]
    if not passed:
        return Decision.RAISE, 0  # Scored less than the first rung, before the rungs were settled.
    rung = passed[-1]
    if not ready:
        seen = sum(other.scored_items >= search.rungs[rung] or _out(other) for other in every)
        sure = rung < len(search.rungs) - 1 and (whole or raised_unheard(seen, search.job.request.racing.eta))
        return (Decision.RAISE if sure else None), rung + 1
    rivals = [standing for other in every if other.id != trial.id for standing in _standings(other, search.rungs)]
    mine = _standings(trial, search.rungs)[-1]
    return decide(mine, rivals, search.rungs, search.job.request.racing.eta, reference=whole), rung + 1


def take_back(session: Session, every: Sequence[TrialBrief]) -> bool:
    """The budget is spent: nothing more is begun. Whether any trial changed."""
    queued = [t for t in every if t.state is TrialState.QUEUED and t.origin not in (PARENT, COMPLETED)]
    for trial in queued:
        trials.move(session, trial.id, TrialState.CANCELLED)
    return bool(queued)


def wind_up(session: Session, search: Search, every: Sequence[TrialBrief], *, ready: bool) -> bool:
    """The budget is spent: nothing is raised any more, and what waits ends as it is, once it was heard."""
    waiting = _waiting(every) if ready else []
    for trial in waiting:
        complete = trial.scored_items >= search.whole
        trials.move(session, trial.id, TrialState.SCORED if complete else TrialState.STOPPED)
    return bool(waiting)


def _waiting(every: Sequence[TrialBrief]) -> list[TrialBrief]:
    return [trial for trial in every if trial.state is TrialState.WAITING and trial.origin != PARENT]


def to_complete(every: Sequence[TrialBrief]) -> TrialBrief | None:
    """The candidate to score in full after a search in which none was: the one that came furthest, then the best.

    A verdict needs a finalist. None where there is one, or where completing one was tried already.
    """
    candidates = [trial for trial in every if trial.origin != PARENT]
    if any(trial.state is TrialState.SCORED or trial.origin == COMPLETED for trial in candidates):
        return None
    stopped = [trial for trial in candidates if trial.state is TrialState.STOPPED and trial.score is not None]
    return max(stopped, key=lambda trial: (trial.scored_items, trial.score or 0.0, -trial.number), default=None)


def _standings(trial: TrialBrief, rungs: Sequence[int]) -> list[Standing]:
    """The candidate's score at every rung that it has passed."""
    heard = {score.items: score.score for score in trial.heard}
    found = [Standing(rung, heard[size]) for rung, size in enumerate(rungs) if size in heard]
    return [*found, *beaten(sum(size <= trial.scored_items for size in rungs), rungs)] if _out(trial) else found


def _out(trial: TrialBrief) -> bool:
    """Whether it is a parent that was told apart from the best one."""
    return trial.origin == PARENT and trial.state is TrialState.STOPPED
