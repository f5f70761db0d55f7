"""Steps: work that was asked for, to be waited for."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Reading
from api.answers import problems
from api.schemas.steps import StepOut
from store import steps

router = APIRouter(prefix="/v1/steps", tags=["steps"])


@router.get("/{step_id}", responses=problems(404))
def get_step(step_id: str, s: Reading) -> StepOut:
    """One step: poll it until its state is final."""
    return StepOut.of(steps.get(s, step_id))
