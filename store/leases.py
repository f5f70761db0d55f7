"""Leases: who holds a step, under which fence number, and until when.

Times are the database's; a worker's clock does not matter. The best runnable step is claimed, whatever a message named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import and_, func, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from core.errors import LeaseLostError
from core.records import Device, Failure, StepKind, StepRecord
from core.states import StepState, sources_of
from store import queue, rows
from store.session import Session
from store.tables import jobs, steps


def claim(
    s: Session,
    *,
    owner: str,
    devices: Sequence[Device],
    kinds: Sequence[StepKind] | None = None,
    prefer_job: str | None = None,
    lease_seconds: float,
) -> StepRecord | None:
    """Take the best runnable step, or None. Its fence rises by one.

    Order: steps that ran before, priority, jobs with fewer running steps, `prefer_job`, age. Steps of a paused or ended
    job do not run (`explain` does), nor does a second `advance` of one job.
    """
    values = {
        "state": StepState.RUNNING.value,
        "owner": owner,
        "fence": steps.c.fence + 1,
        "lease_until": func.now() + queue.seconds(lease_seconds),
    }
    picked = _best(devices, kinds, prefer_job).cte("picked")
    statement = update(steps).where(steps.c.id == picked.c.id, steps.c.state.in_(sources_of(StepState.RUNNING)))
    try:
        with s.connection.begin_nested():
            row = s.execute(statement.values(values).returning(*queue.COLUMNS)).one_or_none()
    except IntegrityError:  # another claim took the job's other `advance` at the same moment
        return None
    return queue.record(row) if row is not None else None


def _best(devices: Sequence[Device], kinds: Sequence[StepKind] | None, prefer_job: str | None) -> Any:
    """The query for the best runnable step's id; it locks the row, passing over those locked by others."""
    busy = (
        select(steps.c.job_id, func.count().label("running"))
        .where(queue.RUNNING)
        .group_by(steps.c.job_id)
        .subquery("busy")
    )
    joined = steps.outerjoin(jobs, jobs.c.id == steps.c.job_id).outerjoin(busy, busy.c.job_id == steps.c.job_id)
    query = select(steps.c.id).select_from(joined)
    query = query.where(queue.runnable(), steps.c.device.in_([device.value for device in devices]))
    if kinds is not None:
        query = query.where(steps.c.kind.in_([kind.value for kind in kinds]))
    query = query.order_by(
        (steps.c.attempts + steps.c.infra_restarts > 0).desc(),
        steps.c.priority.desc(),
        func.coalesce(busy.c.running, 0),
        func.coalesce(steps.c.job_id == prefer_job, False).desc(),
        steps.c.created_at,
        steps.c.id,
    )
    return query.limit(1).with_for_update(of=steps, skip_locked=True)


def heartbeat(s: Session, id: str, fence: int, lease_seconds: float) -> Literal["held", "cancelled", "lost"]:
    """Prolong the lease of a step, or learn that it was cancelled or is another's."""
    mine = and_(steps.c.id == id, steps.c.fence == fence)
    stopped = queue.job_is(queue.STOPPED)
    lease = func.now() + queue.seconds(lease_seconds)
    statement = update(steps).where(mine, queue.RUNNING, ~stopped).values(lease_until=lease)
    if s.execute(statement.returning(steps.c.id)).one_or_none() is not None:
        return "held"
    over = or_(steps.c.state == StepState.CANCELLED.value, and_(queue.RUNNING, stopped))
    return "lost" if s.execute(select(steps.c.id).where(mine, over)).one_or_none() is None else "cancelled"


def guard(s: Session, id: str, fence: int) -> None:
    """Make sure that the step is still held, and stays so until the transaction ends: before writing any result.

    Raises:
        LeaseLostError: it was taken back or cancelled.
    """
    query = select(steps.c.id).where(steps.c.id == id, steps.c.fence == fence, queue.RUNNING)
    # The lock on the job's row guards its steps; a step without a job is guarded by its own.
    if rows.lock_job_of(s, steps, id) is None:
        query = query.with_for_update(key_share=True)
    if s.execute(query.where(~queue.job_is(queue.STOPPED))).one_or_none() is None:
        raise _lost(id, fence)
    s.guarded.add(id)


def finish(s: Session, id: str, fence: int, result: dict[str, Any] | None = None) -> StepRecord:
    """Mark a held step done.

    Raises:
        LeaseLostError: it was taken back or cancelled.
    """
    return _settle(s, id, fence, {**queue.ended(StepState.DONE), "result": result})


def fail(s: Session, id: str, fence: int, failure: Failure, *, retry: bool, max_attempts: int) -> StepRecord:
    """Count a failed attempt of a held step: queue it again after a pause, or let it fail for good.

    Args:
        retry: whether another attempt could succeed.
        max_attempts: attempts in all.

    Raises:
        LeaseLostError: it was taken back or cancelled.
    """
    attempts = steps.c.attempts + 1
    again = and_(literal(retry), attempts < max_attempts)
    values = queue.either(again, queue.requeued(attempts), queue.ended(StepState.FAILED))
    return _settle(s, id, fence, {**values, "attempts": attempts, "failure": rows.dumped(failure)})


def _settle(s: Session, id: str, fence: int, values: dict[str, Any]) -> StepRecord:
    rows.lock_job_of(s, steps, id)
    statement = update(steps).where(steps.c.id == id, steps.c.fence == fence, queue.RUNNING).values(values)
    row = s.execute(statement.returning(*queue.COLUMNS)).one_or_none()
    if row is None:
        raise _lost(id, fence)
    step = queue.record(row)
    if step.kind is StepKind.ADVANCE:
        _ring_next_advance(s, step)
    return step


def _ring_next_advance(s: Session, step: StepRecord) -> None:
    """Ring for the job's next `advance`: its own message came while this one ran and found nothing to do."""
    waiting = and_(steps.c.job_id == step.job_id, steps.c.kind == StepKind.ADVANCE.value, queue.QUEUED, queue.due())
    for row in s.execute(select(*queue.COLUMNS).where(waiting)):
        queue.ring(s, queue.record(row))


def _lost(id: str, fence: int) -> LeaseLostError:
    return LeaseLostError(f"only its holder may write for {id!r}, and claim {fence} of it has ended: stop and discard")
