"""Kept files: where they lie and what they hash to. The files themselves are the doors' business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import insert

from core.records import ArtifactRecord, new_id
from store import rows
from store.page import Page, newest_first
from store.session import ReadSession, Session
from store.tables import artifacts


def create(
    s: Session,
    *,
    job_id: str | None,
    trial_id: str | None,
    kind: str,
    path: str,
    files: Sequence[Mapping[str, Any]],
    bytes: int,
    weights_digest: str | None = None,
) -> ArtifactRecord:
    """Record files once their manifest is written.

    Args:
        path: their folder, relative to the artifact root.
        files: one mapping per file (name, bytes, sha256).
        bytes: their size in all.
    """
    values = {
        "id": new_id("artifact"),
        "job_id": job_id,
        "trial_id": trial_id,
        "kind": kind,
        "path": path,
        "weights_digest": weights_digest,
        "files": [dict(file) for file in files],
        "bytes": bytes,
    }
    row = s.execute(insert(artifacts).values(values).returning(*rows.columns(artifacts, ArtifactRecord))).one()
    return rows.build(ArtifactRecord, row)


def get(s: ReadSession, id: str) -> ArtifactRecord:
    """One artifact.

    Raises:
        NotFoundError: no such artifact.
    """
    return rows.get(s, artifacts, ArtifactRecord, id)


def page(s: ReadSession, limit: int, cursor: str | None = None) -> Page[ArtifactRecord]:
    """Artifacts, newest first."""
    query = rows.query(artifacts, ArtifactRecord)
    return newest_first(s, query, artifacts, limit, cursor, lambda row: rows.build(ArtifactRecord, row))


def of_job(s: ReadSession, job_id: str) -> list[ArtifactRecord]:
    """Artifacts of a job, oldest first."""
    query = rows.query(artifacts, ArtifactRecord).where(artifacts.c.job_id == job_id)
    ordered = query.order_by(artifacts.c.created_at, artifacts.c.id)
    return [rows.build(ArtifactRecord, row) for row in s.execute(ordered)]


def delete(s: Session, id: str) -> ArtifactRecord:
    """Forget an artifact and return what it was, so that the caller can remove its files after the commit.

    Raises:
        NotFoundError: no such artifact.
    """
    statement = delete_from(artifacts).where(artifacts.c.id == id)
    row = s.execute(statement.returning(*rows.columns(artifacts, ArtifactRecord))).one_or_none()
    if row is None:
        raise rows.missing(artifacts, id)
    return rows.build(ArtifactRecord, row)
