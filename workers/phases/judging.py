"""The word on candidates that have been scored up to their target."""

from __future__ import annotations

from collections.abc import Sequence

from core.records import TrialRecord
from core.states import TrialState
from search.racing import Decision, Standing, decide
from store import trials
from store.session import Session
from workers.phases.study import Search

#: Origin of a trial that scores a stopped candidate in full.
COMPLETED = "completed"
ACTIVE = (TrialState.QUEUED, TrialState.RUNNING, TrialState.WAITING)


def judge(session: Session, search: Search, every: Sequence[TrialRecord], *, spent: bool) -> bool:
    """The word on every waiting candidate; whether any trial changed."""
    standings = {trial.id: _standings(trial, search.rungs) for trial in every}
    waiting = [trial for trial in every if trial.state is TrialState.WAITING]
    if spent:
        return _wind_up(session, search, every, waiting)
    changed = False
    # One that was raised and that no runner has taken yet waits still, but has had its word.
    for trial in (t for t in waiting if t.scored_items >= t.target_items):
        changed = True
        rivals = [s for other, found in standings.items() if other != trial.id for s in found]
        mine = standings[trial.id][-1]
        decision = decide(mine, rivals, search.rungs, search.job.request.racing.eta, reference=trial.origin == "parent")
        if decision is Decision.FINISH:
            trials.move(session, trial.id, TrialState.SCORED)
        elif decision is Decision.RAISE:
            trials.raise_target(session, trial.id, search.rungs[mine.rung + 1], mine.rung + 1, search.device)
        else:
            trials.move(session, trial.id, TrialState.STOPPED)
    return changed


def _wind_up(session: Session, search: Search, every: Sequence[TrialRecord], waiting: Sequence[TrialRecord]) -> bool:
    """The budget is spent: nothing is begun or raised any more."""
    for trial in every:
        if trial.state is TrialState.QUEUED and trial.origin not in ("parent", COMPLETED):
            trials.move(session, trial.id, TrialState.CANCELLED)
    for trial in waiting:
        complete = trial.scored_items >= search.rungs[-1]
        trials.move(session, trial.id, TrialState.SCORED if complete else TrialState.STOPPED)
    return True


def to_complete(every: Sequence[TrialRecord]) -> TrialRecord | None:
    """The candidate to score in full after a search in which none was: the one that came furthest, then the best.

    A verdict needs a finalist. None where there is one, or where completing one was tried already.
    """
    candidates = [trial for trial in every if trial.origin != "parent"]
    if any(trial.state is TrialState.SCORED or trial.origin == COMPLETED for trial in candidates):
        return None
    stopped = [trial for trial in candidates if trial.state is TrialState.STOPPED and trial.macro is not None]
    return max(stopped, key=lambda trial: (trial.scored_items, trial.macro or 0.0, -trial.number), default=None)


def _standings(trial: TrialRecord, rungs: Sequence[int]) -> list[Standing]:
    """The candidate's macro at every rung that it has passed."""
    macros = trial.provenance.get("macros", {})
    return [Standing(rung, float(macros[str(size)])) for rung, size in enumerate(rungs) if str(size) in macros]
