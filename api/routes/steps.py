"""Work that was asked for, while it waits and runs: whoever asked can learn that it failed."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Reading
from api.answers import problems
from api.schemas.trials import StepOut
from api.strict import StrictRoute
from store import steps

router = APIRouter(prefix="/v1/steps", tags=["steps"], route_class=StrictRoute)


@router.get("/{step_id}", responses=problems(404))
def get_step(step_id: str, s: Reading) -> StepOut:
    """A step with its state, and why it failed if it did."""
    return StepOut.of(steps.get(s, step_id))
