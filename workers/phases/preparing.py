"""Before a search: inspect what is not known yet, then check that everything fits."""

from __future__ import annotations

from pathlib import Path

from core.errors import HuarizoError, MissingCheckpointError, ParentsDoNotFitError, UnknownModelError
from core.generator_fit import Learned, check_lineage, read_lineage
from core.jobs import HUB_REF, LOCAL_REF
from core.parents import check_parents
from core.records import Device, Failure, JobRecord, ModelRecord, StepKind
from core.settings import Settings
from core.states import JobState, StepState
from store import generators, jobs, models, steps
from store.session import Session
from workers.failures import failure_of
from workers.parents import job_models
from workers.phases import running
from workers.places import model_folder
from workers.vocabularies import in_tokens


def begin(session: Session, settings: Settings, job: JobRecord) -> None:
    """Register unknown models and order their inspection and that of every task."""
    job = jobs.move(session, job.id, JobState.PREPARING)
    if inspect_models(session, job):
        for spec in (*job.request.objective.tasks, *job.request.confirmation.also):
            steps.add(session, StepKind.INSPECT_TASK, Device.CPU, job_id=job.id, payload={"task": spec.task})


def inspect_models(session: Session, job: JobRecord) -> bool:
    """Order the inspection of models that are not known; False where the job failed, as one is no model's name."""
    for ref in dict.fromkeys(model.ref for model in job.posted.models):
        record = _registered(session, ref)
        if record is None:
            unknown = UnknownModelError(f"no model is registered as {ref!r}: use local:<path> or register it")
            _fail(session, job, unknown)
            return False
        # Files of a local folder may have been replaced, so every job reads them anew.
        if record.state != "ready" or LOCAL_REF.match(record.ref):
            steps.add(
                session, StepKind.INSPECT_MODEL, Device.NONE, job_id=job.id, payload={"model_id": record.id, "ref": ref}
            )
    return True


def inspected(session: Session, job: JobRecord) -> bool:
    """Whether every inspection is done; the job fails with the code of one that failed."""
    inspections = steps.of_job(session, job.id, kinds=(StepKind.INSPECT_MODEL, StepKind.INSPECT_TASK))
    failed = next((step for step in inspections if step.state is StepState.FAILED), None)
    if failed is not None:
        jobs.fail(session, job.id, failed.failure or Failure(code="internal", message="an inspection failed"))
        return False
    return all(step.state.final for step in inspections)


def look(session: Session, settings: Settings, job: JobRecord) -> None:
    """Go on once every inspection is done; fail with the code of one that failed."""
    if not inspected(session, job):
        return
    tasks = steps.of_job(session, job.id, kinds=(StepKind.INSPECT_TASK,))
    contents = {str(step.payload["task"]): str((step.result or {})["content"]) for step in tasks}
    try:
        _check(session, settings, job)
    except HuarizoError as error:
        _fail(session, job, error)
        return
    jobs.pin_contents(session, job.id, contents)
    running.begin(session, settings, jobs.move(session, job.id, JobState.RUNNING))


def _check(session: Session, settings: Settings, job: JobRecord) -> None:
    """Check that the parents fit; vocabularies that do not are told apart by their tokens."""
    known = job_models(session, job)
    try:
        check_parents(job.request, known)
        check_lineage(job.request, known, lambda digest: _lineage(session, settings, digest))
    except ParentsDoNotFitError as error:
        raise in_tokens(error, known.values(), lambda ref: _at_hand(ref, settings)) from error


def _lineage(session: Session, settings: Settings, digest: str) -> Learned:
    return read_lineage(settings.artifact_root() / generators.named(session, digest).path)


def _at_hand(ref: str, settings: Settings) -> Path:
    """The folder of a local model: what an explanation needs is not worth a download."""
    if not LOCAL_REF.match(ref):
        raise MissingCheckpointError(f"{ref!r} may have to be fetched first: name a local model")
    return model_folder(ref, settings)


def _registered(session: Session, ref: str) -> ModelRecord | None:
    """The registered model; one that is named by its place is registered on the spot, under that name."""
    known = models.by_name(session, ref)
    if known is None and (LOCAL_REF.match(ref) or HUB_REF.match(ref)):
        return models.register(session, ref, ref)
    return known


def _fail(session: Session, job: JobRecord, error: HuarizoError) -> None:
    jobs.fail(session, job.id, failure_of(error))
