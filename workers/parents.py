"""A job's parents, as the registry knows them."""

from __future__ import annotations

from core.errors import UnknownModelError
from core.model import Model
from core.records import JobRecord
from store import models
from store.session import ReadSession


def job_models(session: ReadSession, job: JobRecord) -> dict[str, Model]:
    """The job's inspected models by the names that it uses.

    Raises:
        UnknownModelError: one of them is not in the registry, or not inspected.
    """
    found = {}
    for wanted in job.request.models:
        record = models.by_name(session, wanted.ref)
        model = record.as_model(wanted.name) if record is not None else None
        if model is None:
            raise UnknownModelError(f"model {wanted.name!r} ({wanted.ref!r}) is not inspected yet: post the job again")
        found[wanted.name] = model
    return found
