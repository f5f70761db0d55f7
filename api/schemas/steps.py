"""Steps on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from api.schemas.failures import FailureOut
from core.records import StepRecord


class StepOut(BaseModel):
    """Work that was asked for."""

    id: str
    kind: str
    state: str = Field(description="`queued`, `running`, `done`, `failed` or `cancelled`.")
    job_id: str | None
    trial_id: str | None
    result: dict[str, Any] | None = Field(description="What it made, for example the id of an artifact.")
    failure: FailureOut | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, step: StepRecord) -> Self:
        """The step on the wire."""
        return cls(
            id=step.id,
            kind=step.kind.value,
            state=step.state.value,
            job_id=step.job_id,
            trial_id=step.trial_id,
            result=step.result,
            failure=FailureOut.of(step.failure),
            created_at=step.created_at,
            finished_at=step.finished_at,
        )
