"""Contents of evaluation tasks, as inspections found them, and how often held-out items were read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import NotFoundError
from core.tasks import TaskContent
from store.session import ReadSession, Session
from store.tables import tasks


def put(s: Session, content: TaskContent) -> None:
    """Store a content, or note that it was seen again: `latest` is the one seen last."""
    values = {
        "name": content.name,
        "content_digest": content.content_digest,
        "version": content.version,
        "content": content.model_dump(mode="json"),
    }
    seen = {"seen_at": func.clock_timestamp()}
    s.execute(insert(tasks).values(values).on_conflict_do_update(index_elements=["name", "content_digest"], set_=seen))


def get(s: ReadSession, name: str, content_digest: str) -> TaskContent:
    """One content.

    Raises:
        NotFoundError: it was never stored.
    """
    found = _one(s, (tasks.c.name == name) & (tasks.c.content_digest == content_digest))
    if found is None:
        raise NotFoundError(f"no content {content_digest!r} of task {name!r}: inspect the task", where="task")
    return found


def latest(s: ReadSession, name: str) -> TaskContent | None:
    """The content of a task that was seen last."""
    return _one(s, tasks.c.name == name)


def known(s: ReadSession) -> frozenset[str]:
    """Names of all tasks that were inspected."""
    return frozenset(s.execute(select(tasks.c.name).distinct()).scalars())


def count_heldout_read(s: Session, content_digest: str) -> int:
    """Count one more read of a content's held-out items, by whichever job, and return how many there were.

    Raises:
        NotFoundError: it was never stored.
    """
    statement = update(tasks).where(tasks.c.content_digest == content_digest)
    counted = s.execute(statement.values(heldout_reads=tasks.c.heldout_reads + 1).returning(tasks.c.heldout_reads))
    reads = [int(row.heldout_reads) for row in counted]
    if not reads:
        raise NotFoundError(f"no task content {content_digest!r}: inspect the task", where="task")
    return max(reads)


def heldout_reads(s: ReadSession, content_digest: str) -> int:
    """How many candidates were ever read on a content's held-out items; 0 where it was never stored."""
    query = select(func.max(tasks.c.heldout_reads)).where(tasks.c.content_digest == content_digest)
    return int(s.execute(query).scalar_one_or_none() or 0)


def _one(s: ReadSession, condition: ColumnElement[bool]) -> TaskContent | None:
    query = select(tasks.c.content).where(condition).order_by(tasks.c.seen_at.desc()).limit(1)
    content: Any = s.execute(query).scalar_one_or_none()
    return TaskContent.model_validate(content) if content is not None else None
