"""A job's parents, as the registry knows them."""

from __future__ import annotations

from core.adapters import Adapter
from core.errors import UnknownModelError
from core.model import Model
from core.parents import job_parents
from core.records import JobRecord
from store import models
from store.session import ReadSession


def job_models(session: ReadSession, job: JobRecord) -> dict[str, Model]:
    """The job's inspected models by the names that it uses, each adapter on its base.

    Raises:
        UnknownModelError: one of them is not in the registry, or not inspected.
        InvalidInputError, ParentsDoNotFitError: an adapter without base, or of another one.
    """
    found: dict[str, Model | Adapter] = {}
    for wanted in job.posted.models:
        record = models.by_name(session, wanted.ref)
        parent = record.as_parent(wanted.name) if record is not None else None
        if parent is None:
            raise UnknownModelError(f"model {wanted.name!r} ({wanted.ref!r}) is not inspected yet: post the job again")
        found[wanted.name] = parent
    return job_parents(job.posted.models, found)
