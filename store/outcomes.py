"""Outcomes: what every candidate answered, document by document, each written exactly once and never changed.

A row is one candidate (by recipe digest) on one task (by scoring fingerprint). `writes` counts the documents written
to it; the database itself checks that it equals the number of documents present.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import OutcomeConflictError
from core.outcomes import Outcomes, pack, unpack
from store.session import ReadSession, Session
from store.tables import outcomes as rows

Key = tuple[str, str]


def load(s: ReadSession, recipe_digest: str, fingerprint: str) -> Outcomes:
    """What is known of one candidate on one task; empty if nothing is."""
    return load_many(s, [(recipe_digest, fingerprint)])[recipe_digest, fingerprint]


def load_many(s: ReadSession, keys: Iterable[Key]) -> dict[Key, Outcomes]:
    """What is known under each (recipe digest, fingerprint); every key is in the answer."""
    found = dict.fromkeys(keys, Outcomes.empty())
    wanted = tuple_(rows.c.recipe_digest, rows.c.fingerprint).in_(list(found))
    for row in s.execute(select(rows).where(wanted)) if found else ():
        found[row.recipe_digest, row.fingerprint] = _unpacked(row)
    return found


def commit(s: Session, *, recipe_digest: str, fingerprint: str, task: str, documents: int, outcomes: Outcomes) -> None:
    """Add results to what is known. Call it for several tasks in one order, so that two writers never block each other.

    Args:
        documents: how many canonical documents the task has.
        outcomes: results for documents that have none yet.

    Raises:
        OutcomeConflictError: a document has a result already; nothing is written.
        ValueError: a document number beyond the task's documents.
    """

    def all_fresh(known: Outcomes) -> Outcomes:
        return (known | outcomes).select(outcomes.numbers)

    _write(s, recipe_digest, fingerprint, task, documents, outcomes, all_fresh)


def complete(
    s: Session, *, recipe_digest: str, fingerprint: str, task: str, documents: int, outcomes: Outcomes
) -> Outcomes:
    """Add those results whose documents have none yet, and return them: two jobs may score one candidate at once.

    Raises:
        OutcomeConflictError: the fingerprint stands for another task.
        ValueError: a document number beyond the task's documents.
    """

    def fresh(known: Outcomes) -> Outcomes:
        return outcomes.select(known.missing(outcomes.numbers))

    return _write(s, recipe_digest, fingerprint, task, documents, outcomes, fresh)


def _write(
    s: Session,
    recipe_digest: str,
    fingerprint: str,
    task: str,
    documents: int,
    outcomes: Outcomes,
    choose: Callable[[Outcomes], Outcomes],
) -> Outcomes:
    """Add what `choose` picks, given what is known already; the row is locked meanwhile."""
    if not outcomes.numbers:
        return outcomes
    if outcomes.numbers[0] < 0 or outcomes.numbers[-1] >= documents:
        raise ValueError(f"documents of {task!r} run from 0 to {documents - 1}, but got {outcomes.numbers[-1]}")
    key = {"recipe_digest": recipe_digest, "fingerprint": fingerprint}
    same = (rows.c.recipe_digest == recipe_digest) & (rows.c.fingerprint == fingerprint)
    locked = select(rows).where(same).with_for_update()
    kept = s.execute(locked).one_or_none()
    if kept is None:
        values = {**key, "task": task, "documents": documents}
        values |= _columns(pack(outcomes, documents), len(outcomes))
        first = insert(rows).values(values).on_conflict_do_nothing(index_elements=list(key))
        if s.execute(first.returning(rows.c.task)).one_or_none() is not None:
            return outcomes
        kept = s.execute(locked).one()  # Somebody else was first, a moment ago.
    if (kept.task, kept.documents) != (task, documents):
        raise OutcomeConflictError(
            f"a fingerprint stands for one task, and {fingerprint!r} for {kept.documents} documents of {kept.task!r}, "
            f"not {documents} of {task!r}: inspect the task again"
        )
    known = _unpacked(kept)
    chosen = choose(known)
    packed = pack(chosen, documents, onto=(kept.presence, kept.correct, kept.margins))
    s.execute(update(rows).where(same).values(_columns(packed, len(known) + len(chosen))))
    return chosen


def _columns(packed: tuple[bytes, bytes, bytes], writes: int) -> dict[str, Any]:
    presence, correct, margins = packed
    return {"presence": presence, "correct": correct, "margins": margins, "writes": writes}


def _unpacked(row: Any) -> Outcomes:
    return unpack(row.presence, row.correct, row.margins)
