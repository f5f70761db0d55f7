"""Registered models."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, select, true, update
from sqlalchemy.dialects.postgresql import insert

from core.adapters import AdapterHeader
from core.errors import ConflictError
from core.jobs import HUB_REF
from core.model import Header
from core.records import Failure, ModelRecord, new_id
from store import rows
from store.page import Page, newest_first
from store.session import ReadSession, Session
from store.tables import models

_SHORT_COMMIT = re.compile(r"^[0-9a-f]{7,40}$")


def register(s: Session, name: str, ref: str) -> ModelRecord:
    """Register a model, or return the one that has this name and reference already.

    A hub reference without a revision, or with the beginning of its commit, still means the model that was pinned.

    Raises:
        ConflictError: the name stands for another reference.
    """
    values = {"id": new_id("model"), "name": name, "ref": ref, "state": "registered"}
    s.execute(insert(models).values(values).on_conflict_do_nothing(index_elements=["name"]))
    found = _one(s, models.c.name == name)
    assert found is not None
    if not _same(found, ref):
        raise ConflictError(
            f"a name stands for one model, and {name!r} is {found.ref!r}, not {ref!r}: take another name", where="name"
        )
    return found


def _same(found: ModelRecord, asked: str) -> bool:
    """Whether a model is what `asked` says. Its inspection may have pinned a hub reference to a commit meanwhile."""
    if asked in (found.ref, found.name):  # A model that a job brought along is called by the reference it gave.
        return True
    ours, theirs = HUB_REF.match(found.ref), HUB_REF.match(asked)
    if ours is None or theirs is None or ours["repo"] != theirs["repo"]:
        return False
    revision = theirs["revision"]
    return revision is None or bool(_SHORT_COMMIT.match(revision) and str(ours["revision"]).startswith(revision))


def get(s: ReadSession, id: str) -> ModelRecord:
    """One model.

    Raises:
        NotFoundError: no such model.
    """
    return rows.get(s, models, ModelRecord, id)


def by_name(s: ReadSession, name: str) -> ModelRecord | None:
    """The model of a name."""
    return _one(s, models.c.name == name)


def page(s: ReadSession, limit: int, cursor: str | None = None) -> Page[ModelRecord]:
    """Models, newest first."""
    query = rows.query(models, ModelRecord)
    return newest_first(s, query, models, limit, cursor, lambda row: rows.build(ModelRecord, row))


def names(s: ReadSession) -> frozenset[str]:
    """Every registered name."""
    return frozenset(s.execute(select(models.c.name)).scalars())


def mark_ready(
    s: Session,
    id: str,
    header: Header | AdapterHeader,
    weights_digest: str,
    *,
    ref: str | None = None,
    renew: bool = False,
) -> ModelRecord:
    """Record what the inspection found, and the pinned reference. Doing it twice is harmless.

    `renew` lets a model change its weights: a local folder's files may be replaced, and every job reads them anew.
    Recipes name weights by digest, so what was found with the old ones stays what it was.

    Raises:
        NotFoundError: no such model.
        ConflictError: it was found with other weights before.
    """
    same = true() if renew else (models.c.state != "ready") | (models.c.weights_digest == weights_digest)
    values = {
        "state": "ready",
        "header": header.model_dump(mode="json"),
        "weights_digest": weights_digest,
        "failure": None,
    } | ({"ref": ref} if ref is not None else {})
    return _settle(s, id, same, values)


def mark_failed(s: Session, id: str, failure: Failure) -> ModelRecord:
    """Record why the model cannot be used.

    Raises:
        NotFoundError: no such model.
        ConflictError: it is ready.
    """
    return _settle(s, id, models.c.state != "ready", {"state": "failed", "failure": rows.dumped(failure)})


def _settle(s: Session, id: str, guard: ColumnElement[bool], values: dict[str, Any]) -> ModelRecord:
    statement = update(models).where(models.c.id == id, guard).values(values)
    row = s.execute(statement.returning(*rows.columns(models, ModelRecord))).one_or_none()
    if row is None:
        kept = get(s, id)
        raise ConflictError(
            f"a model's weights never change, but {kept.name!r} is ready with {kept.weights_digest!r}: "
            "register the other weights under another name",
            where="weights_digest",
        )
    return rows.build(ModelRecord, row)


def _one(s: ReadSession, condition: ColumnElement[bool]) -> ModelRecord | None:
    query = rows.query(models, ModelRecord).where(condition)
    query = query.order_by((models.c.state == "ready").desc(), models.c.created_at, models.c.id).limit(1)
    row = s.execute(query).one_or_none()
    return rows.build(ModelRecord, row) if row is not None else None
