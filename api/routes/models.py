"""Registered models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.access import Cursor, Limit, Reading, SettingsIn, Writing
from api.answers import page_out, problems
from api.schemas.models import ModelIn, ModelOut
from api.schemas.page import PageOut
from api.strict import StrictRoute
from api.submission import check_ref, is_address
from core.errors import InvalidInputError
from core.records import Device, StepKind
from store import models, steps

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)


@router.post("", status_code=202, responses=problems(409, 413, 415, 422))
def register(wanted: ModelIn, response: Response, s: Writing, settings: SettingsIn) -> ModelOut:
    """Register a checkpoint under a name and have it inspected.

    Registering the same name and reference again returns the model that is there; a failed one is inspected again.
    """
    if not is_address(wanted.ref):
        raise InvalidInputError(f"a reference is local:<path> or hub:<org>/<name>, but got {wanted.ref!r}", where="ref")
    check_ref(wanted.ref, settings, where="ref")
    known = models.by_name(s, wanted.name)
    model = models.register(s, wanted.name, wanted.ref)
    if known is None or known.state == "failed":
        steps.add(s, StepKind.INSPECT_MODEL, Device.NONE, payload={"model_id": model.id})
    response.headers["Location"] = f"/v1/models/{model.id}"
    return ModelOut.of(model)


@router.get("", responses=problems(422))
def list_models(
    request: Request, response: Response, s: Reading, settings: SettingsIn, limit: Limit = None, cursor: Cursor = None
) -> PageOut[ModelOut]:
    """Registered models, newest first."""
    return page_out(request, response, models.page(s, limit or settings.page_size, cursor), ModelOut.of)


@router.get("/{model_id}", responses=problems(404))
def get_model(model_id: str, s: Reading) -> ModelOut:
    """One model, by id or by name."""
    return ModelOut.of(models.by_name(s, model_id) or models.get(s, model_id))
