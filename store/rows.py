"""Rows to records, guarded moves, and the one lock order.

A transaction that writes anything of a job first locks the job's row (`lock_job`, `lock_job_of`), so the writers of a
job follow one another, its events become visible in the order of their ids, and no two of them can deadlock. Under
that lock nobody waits for a step's row: steps that a claim or a heartbeat touches right now are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, Table, select, update

from core.errors import ConflictError, NotFoundError
from core.noun import Noun
from core.records import Failure
from core.states import JobState, StepState, TrialState, sources_of
from store.session import ReadSession, Session
from store.tables import jobs

R = TypeVar("R", bound=Noun)


def columns(table: Table, record: type[Noun]) -> list[ColumnElement[Any]]:
    """The columns a record is made of; a table may hold more."""
    return [table.c[field.alias or name] for name, field in record.model_fields.items()]


def build(record: type[R], row: Any) -> R:
    """The record of a row."""
    return record.model_validate(dict(row._mapping))


def query(table: Table, record: type[Noun]) -> Select[Any]:
    """A query for records."""
    return select(*columns(table, record))


def get(s: ReadSession, table: Table, record: type[R], id: str) -> R:
    """One record.

    Raises:
        NotFoundError: no such row.
    """
    row = s.execute(query(table, record).where(table.c.id == id)).one_or_none()
    if row is None:
        raise missing(table, id)
    return build(record, row)


def missing(table: Table, id: str) -> NotFoundError:
    """The error for an id that no row has."""
    return NotFoundError(f"no {table.name[:-1]} {id!r}: list the {table.name} to see what there is", where="id")


def change(
    s: Session, table: Table, record: type[R], id: str, states: Iterable[str], values: dict[str, Any], wish: str
) -> R:
    """One guarded update: set `values` if the row is in one of `states`.

    Args:
        wish: what the caller wants to do, for the error.

    Raises:
        NotFoundError: no such row.
        ConflictError: the row is in another state.
    """
    guard = sorted(str(state) for state in states)
    statement = update(table).where(table.c.id == id, table.c.state.in_(guard)).values(values)
    row = s.execute(statement.returning(*columns(table, record))).one_or_none()
    if row is None:
        raise _refused(s, table, id, guard, wish)
    return build(record, row)


def move(
    s: Session, table: Table, record: type[R], id: str, target: JobState | TrialState | StepState, **values: Any
) -> R:
    """`change` to `target` from wherever `core.states` lets one go there."""
    return change(s, table, record, id, sources_of(target), {"state": target.value, **values}, f"become {target}")


def _refused(s: ReadSession, table: Table, id: str, guard: list[str], wish: str) -> NotFoundError | ConflictError:
    state = s.execute(select(table.c.state).where(table.c.id == id)).scalar_one_or_none()
    if state is None:
        return missing(table, id)
    return ConflictError(
        f"only a {table.name[:-1]} that is {' or '.join(guard)} can {wish}, but {id!r} is {state}: look again",
        where="state",
    )


def lock_job(s: Session, id: str) -> None:
    """Lock a job's row until the end of the transaction, before writing anything of the job.

    Raises:
        NotFoundError: no such job.
    """
    if id in s.locked:
        return
    found = s.execute(select(jobs.c.id).where(jobs.c.id == id).with_for_update(key_share=True)).one_or_none()
    if found is None:
        raise missing(jobs, id)
    s.locked.add(id)


def lock_job_of(s: Session, table: Table, id: str) -> str | None:
    """Lock the row of the job that a trial or a step belongs to, and return the job's id (None: it has no job).

    Raises:
        NotFoundError: no such trial or step.
    """
    found = s.execute(select(table.c.job_id).where(table.c.id == id)).one_or_none()
    if found is None:
        raise missing(table, id)
    job_id: str | None = found.job_id
    if job_id is not None:
        lock_job(s, job_id)
    return job_id


def dumped(failure: Failure | None) -> dict[str, Any] | None:
    """A failure as JSON."""
    return failure.model_dump(mode="json") if failure is not None else None
