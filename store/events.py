"""What happened to a job, in order. Whoever has read up to an id misses nothing by reading on from there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from core.records import EventRecord
from store import rows
from store.session import ReadSession, Session
from store.tables import events


def append(s: Session, job_id: str, kind: str, payload: dict[str, Any]) -> None:
    """Add an event. The lock on the job's row makes the ids of its events become visible in their order.

    Raises:
        NotFoundError: no such job.
    """
    rows.lock_job(s, job_id)
    s.execute(insert(events).values(job_id=job_id, kind=kind, payload=payload))


def after(s: ReadSession, job_id: str, id: int, limit: int) -> list[EventRecord]:
    """At most `limit` events of a job with ids above `id` (0: from the first), ascending."""
    query = rows.query(events, EventRecord).where(events.c.job_id == job_id, events.c.id > id)
    return [rows.build(EventRecord, row) for row in s.execute(query.order_by(events.c.id).limit(limit))]


def of_kind(s: ReadSession, job_id: str, kind: str) -> list[EventRecord]:
    """All events of one kind of a job, ascending."""
    query = rows.query(events, EventRecord).where(events.c.job_id == job_id, events.c.kind == kind)
    return [rows.build(EventRecord, row) for row in s.execute(query.order_by(events.c.id))]
