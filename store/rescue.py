"""Taking back what a dead worker held, ringing again for what waits, and what the metrics show of the queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select, update

from core.records import Device, Failure, StepKind, StepRecord
from core.states import StepState
from store import queue, rows
from store.session import ReadSession, Session
from store.tables import jobs, steps

#: At most so many bells at once: a message only says `look`, so a few wake as many workers as there are.
BELLS = 100


def release(s: Session, owner: str) -> int:
    """Queue again whatever an owner holds, as its runner died; return how many. The first restart costs no pause."""
    held = and_(steps.c.owner == owner, queue.RUNNING)
    _lock_jobs(s, select(steps.c.job_id).where(held), skip=False)
    times = steps.c.infra_restarts + 1
    values = {**queue.requeued(times, free=1), "infra_restarts": times}
    return len(_ring_again(s, s.execute(update(steps).where(held).values(values).returning(*queue.COLUMNS))))


def owners(s: ReadSession) -> list[str]:
    """Everybody who holds a step at the moment, sorted."""
    query = select(steps.c.owner).where(queue.RUNNING, steps.c.owner.is_not(None)).distinct().order_by(steps.c.owner)
    return [str(owner) for owner in s.execute(query).scalars()]


def held_by(s: ReadSession, owner: str) -> list[StepRecord]:
    """The steps that an owner holds at the moment."""
    query = select(*queue.COLUMNS).where(queue.RUNNING, steps.c.owner == owner).order_by(steps.c.id)
    return [queue.record(row) for row in s.execute(query)]


def idle_jobs(s: ReadSession) -> list[str]:
    """Jobs under way that nothing would wake: neither ended nor paused, and without an open step."""
    open_step = select(steps.c.id).where(steps.c.job_id == jobs.c.id, or_(queue.QUEUED, queue.RUNNING))
    query = select(jobs.c.id).where(jobs.c.state.not_in(queue.HALTED), ~open_step.exists()).order_by(jobs.c.id)
    return list(s.execute(query).scalars())


def expire(s: Session, *, max_infra_restarts: int) -> list[StepRecord]:
    """Queue again every step whose lease ran out, and return those that failed as they were restarted too often.

    Their trial or job is the caller's to fail, in this transaction. What an ended job left on the queue is cancelled.
    Jobs that are being written at the moment are left for the next time.
    """
    expired = and_(queue.RUNNING, steps.c.lease_until < func.now())
    over_cap = and_(queue.QUEUED, steps.c.infra_restarts > max_infra_restarts)
    orphaned = and_(queue.job_is(queue.ENDED), steps.c.kind != StepKind.EXPLAIN.value)
    rescued = or_(expired, over_cap, and_(queue.QUEUED, orphaned))
    locked = _lock_jobs(s, select(steps.c.job_id).where(rescued), skip=True)
    mine = and_(rescued, or_(steps.c.job_id.is_(None), steps.c.job_id.in_(locked)))
    chosen = select(steps.c.id).where(mine).with_for_update(skip_locked=True).cte("chosen")
    times = steps.c.infra_restarts + case((queue.RUNNING, 1), else_=0)
    failure = Failure(code="lease_lost", message=f"its worker died more than {max_infra_restarts} times: read its log")
    failed = {**queue.ended(StepState.FAILED), "failure": rows.dumped(failure)}
    values = queue.either(times > max_infra_restarts, failed, queue.requeued(times, free=1))
    values = queue.either(orphaned, queue.ended(StepState.CANCELLED), values)
    statement = update(steps).where(steps.c.id == chosen.c.id).values({**values, "infra_restarts": times})
    found = _ring_again(s, s.execute(statement.returning(*queue.COLUMNS)))
    return [step for step in found if step.state is StepState.FAILED]


def overdue(s: Session, ring_seconds: float) -> list[StepRecord]:
    """Ring again for runnable steps that nobody rang for since `ring_seconds`, the oldest first; return them."""
    silent = or_(steps.c.rung_at.is_(None), steps.c.rung_at < func.now() - queue.seconds(ring_seconds))
    query = select(steps.c.id).select_from(steps.outerjoin(jobs, jobs.c.id == steps.c.job_id))
    query = query.where(queue.runnable(), silent).order_by(steps.c.created_at, steps.c.id).limit(BELLS)
    chosen = query.with_for_update(of=steps, skip_locked=True).cte("chosen")
    statement = update(steps).where(steps.c.id == chosen.c.id).values(rung_at=func.now())
    found = [queue.record(row) for row in s.execute(statement.returning(*queue.COLUMNS))]
    for step in found:
        queue.ring(s, step)
    return found


def counts(s: ReadSession) -> dict[str, Any]:
    """The queue in figures.

    Returns:
        `depth`: steps by device, then by `queued` and `running`; `oldest_queued_seconds`: age of the oldest step that
        could run; `oldest_expired_lease_seconds`: for how long the longest expired lease has been so. 0 for none.
    """
    open_steps = (StepState.QUEUED.value, StepState.RUNNING.value)
    depth = {device.value: dict.fromkeys(open_steps, 0) for device in Device}
    by_kind = select(steps.c.device, steps.c.state, func.count().label("n")).where(or_(queue.QUEUED, queue.RUNNING))
    for row in s.execute(by_kind.group_by(steps.c.device, steps.c.state)):
        depth[row.device][row.state] = row.n
    waiting = select(func.min(func.greatest(steps.c.created_at, steps.c.not_before)))
    waiting = waiting.select_from(steps.outerjoin(jobs, jobs.c.id == steps.c.job_id)).where(queue.runnable())
    leases = select(func.min(steps.c.lease_until)).where(queue.RUNNING, steps.c.lease_until < func.now())
    return {
        "depth": depth,
        "oldest_queued_seconds": _age(s, waiting.scalar_subquery()),
        "oldest_expired_lease_seconds": _age(s, leases.scalar_subquery()),
    }


def _age(s: ReadSession, moment: ColumnElement[Any]) -> float:
    return float(s.execute(select(func.coalesce(func.extract("epoch", func.now() - moment), 0))).scalar_one())


def _lock_jobs(s: Session, ids: Any, *, skip: bool) -> list[str]:
    """Lock the jobs' rows in the order of their ids, as everybody does, so that nobody waits in a circle."""
    query = select(jobs.c.id).where(jobs.c.id.in_(ids)).order_by(jobs.c.id)
    found = list(s.execute(query.with_for_update(key_share=True, skip_locked=skip)).scalars())
    s.locked.update(found)
    return found


def _ring_again(s: Session, found: Iterable[Any]) -> list[StepRecord]:
    """The records of re-queued rows; a bell for those that need not wait."""
    steps_found = [queue.record(row) for row in found]
    for step in steps_found:
        if step.state is StepState.QUEUED and step.not_before is None:
            queue.ring(s, step)
    return steps_found
