"""Steps: the one unit of work that is leased, claimed and rung for.

Here they are queued, read and cancelled; `store.leases` claims and holds them, `store.rescue` takes them back. All is
used as `store.steps`. For the order in which locks are taken see `store.rows`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, select, update

from core.records import Device, StepKind, StepRecord, new_id
from core.states import StepState
from store import queue, rows
from store.leases import claim, fail, finish, guard, heartbeat
from store.queue import ring
from store.rescue import counts, expire, held_by, idle_jobs, overdue, owners, release
from store.session import ReadSession, Session
from store.tables import steps

__all__ = [
    "PROMOTION",
    "add",
    "cancel",
    "cancel_kind",
    "claim",
    "counts",
    "ensure_advance",
    "expire",
    "fail",
    "finish",
    "get",
    "guard",
    "heartbeat",
    "held_by",
    "idle_jobs",
    "of_job",
    "overdue",
    "owners",
    "release",
    "ring",
    "seconds_of",
]

#: Priority of the next rung of a trial: ahead of trials that have not begun.
PROMOTION = 100


def add(
    s: Session,
    kind: StepKind,
    device: Device,
    *,
    job_id: str | None = None,
    trial_id: str | None = None,
    payload: dict[str, Any] | None = None,
    priority: int = 0,
    not_before: datetime | None = None,
) -> StepRecord:
    """Queue a step and ring for it; one that must wait is rung by the reconciler when its time has come.

    Raises:
        NotFoundError: no such job.
    """
    if job_id is not None:
        rows.lock_job(s, job_id)
    values = {
        "id": new_id("step"),
        "job_id": job_id,
        "trial_id": trial_id,
        "kind": kind.value,
        "device": device.value,
        "payload": payload or {},
        "priority": priority,
        "state": StepState.QUEUED.value,
        "not_before": not_before,
        "rung_at": func.now() if not_before is None else None,
    }
    step = queue.record(s.execute(insert(steps).values(values).returning(*queue.COLUMNS)).one())
    if not_before is None:
        ring(s, step)
    return step


def ensure_advance(s: Session, job_id: str) -> None:
    """Queue an `advance` step for a job unless one is queued that cannot start before this transaction has ended.

    A queued step that is being claimed right now does not count: it may not see what this transaction writes.

    Raises:
        NotFoundError: no such job.
    """
    rows.lock_job(s, job_id)
    fresh = and_(steps.c.job_id == job_id, steps.c.kind == StepKind.ADVANCE.value, queue.QUEUED, queue.due())
    held = select(*queue.COLUMNS).where(fresh).limit(1).with_for_update(skip_locked=True)
    if (found := s.execute(held).one_or_none()) is None:
        add(s, StepKind.ADVANCE, Device.NONE, job_id=job_id)
    else:
        ring(s, queue.record(found))


def get(s: ReadSession, id: str) -> StepRecord:
    """One step.

    Raises:
        NotFoundError: no such step.
    """
    return rows.get(s, steps, StepRecord, id)


def of_job(
    s: ReadSession,
    job_id: str,
    kinds: Collection[StepKind] | None = None,
    states: Collection[StepState] | None = None,
) -> list[StepRecord]:
    """Steps of a job, oldest first, all or some."""
    query = rows.query(steps, StepRecord).where(steps.c.job_id == job_id)
    if kinds is not None:
        query = query.where(steps.c.kind.in_([kind.value for kind in kinds]))
    if states is not None:
        query = query.where(steps.c.state.in_([state.value for state in states]))
    return [queue.record(row) for row in s.execute(query.order_by(steps.c.created_at, steps.c.id))]


def seconds_of(s: ReadSession, job_id: str, kind: StepKind) -> float:
    """Seconds that a job's finished steps of one kind took, by their results."""
    mine = (steps.c.job_id == job_id) & (steps.c.kind == kind.value) & (steps.c.state == StepState.DONE.value)
    total = func.coalesce(func.sum(steps.c.result["seconds"].as_float()), 0.0)
    return float(s.execute(select(total).where(mine)).scalar_one())


def cancel(s: Session, which: ColumnElement[bool], states: Sequence[StepState]) -> None:
    """Cancel the steps of a job or a trial whose row is locked, but not those this transaction guards.

    A step that is being claimed or prolonged right now is skipped; its holder learns of the end by its next heartbeat.
    """
    chosen = select(steps.c.id).where(which, steps.c.state.in_([state.value for state in states]))
    chosen = chosen.where(steps.c.id.not_in(s.guarded)).with_for_update(skip_locked=True)
    values = {"state": StepState.CANCELLED.value, "finished_at": func.now()}
    s.execute(update(steps).where(steps.c.id.in_(chosen.cte("chosen").select())).values(values))


def cancel_kind(s: Session, job_id: str, kind: StepKind) -> None:
    """Cancel all steps of one kind of a job that have not ended.

    Raises:
        NotFoundError: no such job.
    """
    rows.lock_job(s, job_id)
    cancel(s, (steps.c.job_id == job_id) & (steps.c.kind == kind.value), (StepState.QUEUED, StepState.RUNNING))
