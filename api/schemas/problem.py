"""Problem details (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FieldProblem(BaseModel):
    """One field that breaks a rule: its path in the body and the rule."""

    where: str
    message: str


class Problem(BaseModel):
    """Why a request failed. `code` is stable; `where` names the offending field, file or tensor."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/v1/problems/unknown_method",
                    "title": "No merge method of that name",
                    "status": 422,
                    "detail": "unknown merge method 'tyes': did you mean 'ties'?",
                    "code": "unknown_method",
                    "where": "method",
                    "request_id": "01JD3N5W6ZQ4",
                }
            ]
        }
    )

    type: str = Field(description="Path at which the code is explained.")
    title: str
    status: int
    detail: str
    code: str
    where: str | None = None
    errors: tuple[FieldProblem, ...] | None = None
    request_id: str | None = None


class ProblemInfo(BaseModel):
    """A code that problems may carry."""

    code: str
    status: int
    title: str
