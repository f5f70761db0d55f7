"""Whether the process lives, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.access import DatabaseIn
from api.answers import problems
from api.errors import problem
from api.health import PARTS, missing_parts
from api.schemas.health import Health
from api.schemas.problem import FieldProblem

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Health, responses=problems())
def ready(request: Request, database: DatabaseIn) -> Response:
    """Database, schema and broker; a problem names those that are not ready."""
    wrong = missing_parts(database)
    if not wrong:
        return JSONResponse(Health(status="ok", checks=dict.fromkeys(PARTS, "ok")).model_dump())
    detail = "; ".join(f"{part}: {reason}" for part, reason in wrong.items())
    fields = [FieldProblem(where=part, message=reason) for part, reason in wrong.items()]
    return problem("service_unavailable", detail, fields=fields, request_id=request.state.request_id)
