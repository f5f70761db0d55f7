"""Artifacts on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from core.records import ArtifactRecord


class ArtifactOut(BaseModel):
    """Kept files: a checkpoint, a generator of weights or an explanation, with the manifest of its files."""

    id: str
    job_id: str | None
    trial_id: str | None
    kind: str
    weights_digest: str | None
    files: tuple[dict[str, Any], ...] = Field(description="Path, size in bytes and sha256 of every file.")
    bytes: int
    created_at: datetime

    @classmethod
    def of(cls, record: ArtifactRecord) -> Self:
        """The record on the wire; where the files lie on disk stays here."""
        return cls(**record.model_dump(exclude={"path"}))
