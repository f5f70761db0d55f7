"""The queue's vocabulary: which steps may run, what re-queueing writes, how to ring for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, cast, func, literal, or_, select

from core.records import StepKind, StepRecord
from core.states import JobState, StepState
from store import rows
from store.bell import queue_of
from store.session import Session
from store.tables import jobs, steps

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 60.0

COLUMNS = rows.columns(steps, StepRecord)
QUEUED, RUNNING = steps.c.state == StepState.QUEUED.value, steps.c.state == StepState.RUNNING.value
STOPPED = (JobState.FAILED.value, JobState.CANCELLED.value)
ENDED = (*STOPPED, JobState.SUCCEEDED.value)
HALTED = (*ENDED, JobState.PAUSED.value)


def record(row: Any) -> StepRecord:
    """The record of a row."""
    return rows.build(StepRecord, row)


def ring(s: Session, step: StepRecord) -> None:
    """Ring for a step once the transaction has committed."""
    s.ring(queue_of(step.kind, step.device), step.kind.value, step.id)


def due() -> ColumnElement[bool]:
    """Whether its time has come."""
    return or_(steps.c.not_before.is_(None), steps.c.not_before <= func.now())


def runnable() -> ColumnElement[bool]:
    """Over steps joined with their jobs: whether a worker may take it now.

    Steps of a paused or ended job may not (`explain` may), nor a second `advance` of one job.
    """
    going = or_(steps.c.job_id.is_(None), jobs.c.state.not_in(HALTED), steps.c.kind == StepKind.EXPLAIN.value)
    return and_(QUEUED, due(), going, _alone())


def _alone() -> ColumnElement[bool]:
    other = steps.alias("other")
    advance = StepKind.ADVANCE.value
    running = select(other.c.id).where(
        other.c.job_id == steps.c.job_id, other.c.kind == advance, other.c.state == StepState.RUNNING.value
    )
    return or_(steps.c.kind != advance, ~running.exists())


def job_is(states: Sequence[str]) -> ColumnElement[bool]:
    """Whether the step's job is in one of `states`."""
    return select(jobs.c.id).where(jobs.c.id == steps.c.job_id, jobs.c.state.in_(states)).exists()


def requeued(times: ColumnElement[Any], *, free: int = 0) -> dict[str, Any]:
    """Values that put a step back on the queue, after a pause that doubles each time.

    Args:
        times: how often it was tried, this time included.
        free: how many of those cost no pause.
    """
    pause = func.least(
        FIRST_BACKOFF_SECONDS * func.power(2.0, func.least(times - free - 1, 16)), LONGEST_BACKOFF_SECONDS
    )
    return {
        "state": StepState.QUEUED.value,
        "not_before": case((times <= free, None), else_=func.now() + seconds(pause)),
        "owner": None,
        "lease_until": None,
        "rung_at": None,
    }


def ended(state: StepState) -> dict[str, Any]:
    """Values that end a step. Its last owner stays on record."""
    return {
        "state": state.value,
        "not_before": None,
        "lease_until": None,
        "finished_at": func.now(),
    }


def either(condition: ColumnElement[bool], yes: dict[str, Any], no: dict[str, Any]) -> dict[str, Any]:
    """The values of `yes` where the condition holds, else those of `no`; what one does not name stays as it is."""
    return {name: case((condition, _typed(name, yes)), else_=_typed(name, no)) for name in dict.fromkeys([*yes, *no])}


def _typed(name: str, values: dict[str, Any]) -> ColumnElement[Any]:
    """A value with its column's type, which Postgres cannot infer within a CASE."""
    value, kind = values.get(name, steps.c[name]), steps.c[name].type
    return value if isinstance(value, ColumnElement) else cast(literal(value, kind), kind)


def seconds(value: Any) -> ColumnElement[Any]:
    """An interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value)
