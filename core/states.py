"""The three state machines. Every move is one guarded update; the tables here say which moves exist."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """States of a job."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    CONFIRMING = "confirming"
    EXPORTING = "exporting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not JOB_MOVES[self]


class TrialState(StrEnum):
    """States of a trial. `waiting` has scored its target and waits for the proposer's word."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SCORED = "scored"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not TRIAL_MOVES[self]


class StepState(StrEnum):
    """States of a step, the one leased unit of work."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return not STEP_MOVES[self]


_J, _T, _S = JobState, TrialState, StepState

#: Job kinds without confirmation or export skip those states, hence the moves past them.
JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    _J.QUEUED: frozenset({_J.PREPARING, _J.FAILED, _J.CANCELLED}),
    _J.PREPARING: frozenset({_J.RUNNING, _J.FAILED, _J.CANCELLED}),
    _J.RUNNING: frozenset({_J.PAUSED, _J.CONFIRMING, _J.EXPORTING, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED}),
    _J.PAUSED: frozenset({_J.RUNNING, _J.FAILED, _J.CANCELLED}),
    _J.CONFIRMING: frozenset({_J.EXPORTING, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED}),
    _J.EXPORTING: frozenset({_J.SUCCEEDED, _J.FAILED, _J.CANCELLED}),
    _J.SUCCEEDED: frozenset(),
    _J.FAILED: frozenset(),
    _J.CANCELLED: frozenset(),
}

TRIAL_MOVES: dict[TrialState, frozenset[TrialState]] = {
    _T.QUEUED: frozenset({_T.RUNNING, _T.FAILED, _T.CANCELLED}),
    _T.RUNNING: frozenset({_T.WAITING, _T.SCORED, _T.STOPPED, _T.FAILED, _T.CANCELLED}),
    _T.WAITING: frozenset({_T.RUNNING, _T.SCORED, _T.STOPPED, _T.FAILED, _T.CANCELLED}),
    _T.SCORED: frozenset(),
    _T.STOPPED: frozenset(),
    _T.FAILED: frozenset(),
    _T.CANCELLED: frozenset(),
}

#: A lost lease or a retry puts a running step back on the queue.
STEP_MOVES: dict[StepState, frozenset[StepState]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.QUEUED, _S.DONE, _S.FAILED, _S.CANCELLED}),
    _S.DONE: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}


def sources_of(target: JobState | TrialState | StepState) -> tuple[str, ...]:
    """The states from which `target` can be reached, sorted: the guard of an update."""
    moves: dict[StrEnum, frozenset[StrEnum]]
    moves = {JobState: JOB_MOVES, TrialState: TRIAL_MOVES, StepState: STEP_MOVES}[type(target)]  # type: ignore[assignment]
    return tuple(sorted(str(state) for state, nexts in moves.items() if target in nexts))
