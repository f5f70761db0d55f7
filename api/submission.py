"""What a posted job or model must pass before a row is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.schemas.jobs import CloneIn
from api.tasks import known_tasks
from core.adapters import Adapter
from core.errors import CheckpointError, HuarizoError, InvalidInputError, NotFoundError
from core.generator_fit import check_lineage, check_sources, read_lineage
from core.jobs import HUB_REF, LOCAL_REF, GeneratorJob, SearchJob, check_job, check_names, read_job
from core.model import Model
from core.parents import check_parents, job_parents
from core.records import JobRecord
from core.refs import check_hub, resolve_local
from core.settings import Settings
from core.trajectories import with_snapshots
from store import generators, jobs, models
from store.session import ReadSession


def cloned(job: JobRecord, wanted: CloneIn) -> SearchJob | GeneratorJob:
    """A job's request with some fields changed.

    Raises:
        RequestValidationError: the changed request breaks a rule; fields are named as in a posted job.
    """
    fields = merged(job.posted.model_dump(mode="json"), wanted.changes)
    if wanted.warm_start:
        fields["warm_start"] = [job.id, *(id for id in fields.get("warm_start", ()) if id != job.id)]
    try:
        return read_job(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from error


def merged(target: Any, patch: Any) -> Any:
    """JSON under a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = merged(kept.get(name), value)
    return kept


def check_submission(s: ReadSession, job: SearchJob, settings: Settings) -> SearchJob:
    """Check everything that can be known of a search without reading weights, and name its generators by digest.

    Raises:
        HuarizoError: the first rule that is broken, with its code and the field.
    """
    job = generators.pinned(s, job)
    check_job(job, tasks=known_tasks(s, settings.task_folders))
    known = _known_models(s, job, settings)
    for id in job.warm_start:
        _check_job(s, id)
    check_parents(job, known)
    check_lineage(job, known, lambda digest: read_lineage(settings.artifact_root() / generators.named(s, digest).path))
    return job


def check_training(s: ReadSession, job: GeneratorJob, settings: Settings) -> GeneratorJob:
    """Check everything that can be known of a training without reading weights, and name its snapshots one by one.

    Raises:
        HuarizoError: the first rule that is broken, with its code and the field.
    """
    job = with_snapshots(job, lambda ref: _snapshot_folder(ref, settings))
    known = _known_models(s, job, settings)
    if job.elite is not None:
        generators.check_search(s, job.elite.job)
    check_sources(job, known)
    return job


def _snapshot_folder(ref: str, settings: Settings) -> Path:
    try:
        return resolve_local(ref, settings.model_roots)
    except CheckpointError as error:
        raise _at(error, "trajectory.folder") from error


def _known_models(s: ReadSession, job: SearchJob | GeneratorJob, settings: Settings) -> dict[str, Model]:
    """The job's models that are inspected, once all of them can be found."""
    check_names(job, models.names(s))
    for model in job.models:
        check_ref(model.ref, settings, where=f"models.{model.name}")
    return job_parents(job.models, ready_models(s, {model.name: model.ref for model in job.models}))


def check_ref(ref: str, settings: Settings, *, where: str) -> None:
    """Check a `local:` or `hub:` reference; a registered name passes.

    Raises:
        PathNotAllowedError, MissingCheckpointError: outside the roots or the allow-list, or nothing there.
    """
    try:
        if ref.startswith("local:"):
            resolve_local(ref, settings.model_roots)
        elif ref.startswith("hub:"):
            check_hub(ref, settings.hub_allow)
    except CheckpointError as error:
        raise _at(error, where) from error


def is_address(ref: str) -> bool:
    """Whether a reference says where a checkpoint lies, rather than naming a registered model."""
    return bool(LOCAL_REF.match(ref) or HUB_REF.match(ref))


def ready_models(s: ReadSession, refs: dict[str, str]) -> dict[str, Model | Adapter]:
    """Those of the models and adapters that are inspected, by the name the request uses.

    Args:
        s: the session.
        refs: by name, a registered name or an address (under which a model is registered as well).

    Raises:
        CheckpointError: a model was inspected and cannot be used.
    """
    found: dict[str, Model | Adapter] = {}
    for name, ref in refs.items():
        record = models.by_name(s, ref)
        parent = record.as_parent(name) if record is not None else None
        if parent is not None:
            found[name] = parent
    return found


def _check_job(s: ReadSession, id: str) -> None:
    try:
        jobs.get(s, id)
    except NotFoundError as error:
        raise InvalidInputError(
            f"a warm start needs a job, but there is no {id!r}: list the jobs", where="warm_start"
        ) from error


def _at(error: HuarizoError, where: str) -> HuarizoError:
    """The same failure with the field it is about."""
    return type(error)(error.message, where=re.sub(r"[^\w.:-]", "_", where))
