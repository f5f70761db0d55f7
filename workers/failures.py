"""What a failed step means for its trial or job. Failure is data: a candidate's failure never stops the search."""

from __future__ import annotations

import logging

from core.errors import (
    CancelledError,
    CheckpointError,
    GeneratorError,
    HuarizoError,
    InvalidInputError,
    LeaseLostError,
    ParentsDoNotFitError,
    TaskError,
    TrialError,
)
from core.records import Failure, StepKind, StepRecord
from core.settings import Settings
from core.states import JobState, StepState, TrialState
from store import jobs, models, steps, trials
from store.session import Database, Session

log = logging.getLogger(__name__)

#: Errors that another try cannot mend.
_FINAL = (
    InvalidInputError,
    ParentsDoNotFitError,
    CheckpointError,
    GeneratorError,
    TaskError,
    TrialError,
    CancelledError,
)


def failure_of(error: BaseException) -> Failure:
    """The record of an error; what has no code of its own is `internal`."""
    if isinstance(error, HuarizoError):
        return Failure(code=error.code, message=error.message, where=error.where)
    if isinstance(error, MemoryError):
        return Failure(code="out_of_memory", message="the worker ran out of memory: use a smaller batch or device")
    return Failure(code="internal", message=f"{type(error).__name__}: {error}"[:2000])


def settle(database: Database, settings: Settings, step: StepRecord, error: BaseException) -> None:
    """Record a step's failure in one transaction: again later, or for good with its consequences."""
    if isinstance(error, LeaseLostError | CancelledError):
        log.info("step %s (%s) ended without a result: %s", step.id, step.kind, error)
        return
    log.error("step %s (%s) failed", step.id, step.kind, exc_info=error)
    try:
        with database.transaction() as session:
            failed = steps.fail(
                session,
                step.id,
                step.fence,
                failure_of(error),
                retry=not isinstance(error, _FINAL),
                max_attempts=settings.max_attempts,
            )
            if failed.state is StepState.FAILED:
                bear(session, failed)
    except LeaseLostError:
        log.warning("step %s was lost before its failure could be recorded", step.id)


def bear(session: Session, step: StepRecord) -> None:
    """The consequences of a step that failed for good."""
    failure = step.failure or Failure(code="internal", message=f"{step.kind} failed")
    if step.kind is StepKind.INSPECT_MODEL:
        model = models.get(session, str(step.payload["model_id"]))
        if model.state != "ready":
            models.mark_failed(session, model.id, failure)
        return _wake_waiting_jobs(session, step)
    if step.job_id is None:
        return None
    if jobs.get(session, step.job_id).state.final:
        return None
    if step.kind is StepKind.RUN_TRIAL and step.trial_id is not None:
        if not trials.get(session, step.trial_id).state.final:
            trials.move(session, step.trial_id, TrialState.FAILED, failure=failure)
        steps.ensure_advance(session, step.job_id)
        return None
    if step.kind is StepKind.REFINE or _own_generator(session, step):
        # The search goes on without what it would have found.
        steps.ensure_advance(session, step.job_id)
        return None
    if step.kind is StepKind.CONFIRM:
        # Whether the job can do without this reading is said once all of them have ended.
        steps.ensure_advance(session, step.job_id)
        return None
    if step.kind is StepKind.EXPORT and step.payload.get("asked"):
        return None  # A checkpoint somebody asked for beside the job's own: the job's result stands.
    jobs.fail(session, step.job_id, failure)
    return None


def _own_generator(session: Session, step: StepRecord) -> bool:
    """Whether it trained for a search, not for a job of its own."""
    return step.kind is StepKind.TRAIN_GENERATOR and jobs.get(session, str(step.job_id)).training is None


def _wake_waiting_jobs(session: Session, step: StepRecord) -> None:
    """Jobs that wait for this model learn of its failure by advancing."""
    if step.job_id is not None and jobs.get(session, step.job_id).state is JobState.PREPARING:
        steps.ensure_advance(session, step.job_id)
