"""What a job does that trains a generator: its models are inspected, one step trains, and that is all."""

from __future__ import annotations

from core.errors import HuarizoError
from core.generator_fit import check_sources
from core.jobs import GeneratorJob
from core.model import Model
from core.records import Device, Failure, JobRecord, StepKind
from core.settings import Settings
from core.states import JobState, StepState
from store import generators, jobs, steps
from store.session import ReadSession, Session
from workers.failures import failure_of
from workers.parents import job_models
from workers.phases import preparing


def begin(session: Session, settings: Settings, job: JobRecord) -> None:
    """Register unknown models and order their inspection."""
    job = jobs.move(session, job.id, JobState.PREPARING)
    if preparing.inspect_models(session, job):
        # Models that are known already need no inspection, and nothing else would wake the job.
        steps.ensure_advance(session, job.id)


def prepared(session: Session, settings: Settings, job: JobRecord) -> None:
    """Once every model is inspected: check that they can be learned from, and order the training."""
    if not preparing.inspected(session, job):
        return
    assert job.training is not None
    try:
        check(session, job.training, job_models(session, job))
    except HuarizoError as error:
        jobs.fail(session, job.id, failure_of(error))
        return
    jobs.move(session, job.id, JobState.RUNNING)
    steps.add(session, StepKind.TRAIN_GENERATOR, Device.CPU, job_id=job.id)


def look(session: Session, settings: Settings, job: JobRecord) -> None:
    """Succeed once the generator lies there."""
    ordered = steps.of_job(session, job.id, kinds=(StepKind.TRAIN_GENERATOR,))
    if not ordered or not ordered[-1].state.final:
        return
    if ordered[-1].state is StepState.DONE:
        jobs.move(session, job.id, JobState.SUCCEEDED)
    else:
        lost = Failure(code="internal", message="the training failed")
        jobs.fail(session, job.id, ordered[-1].failure or lost)


def check(session: ReadSession, job: GeneratorJob, models: dict[str, Model]) -> None:
    """Check that models can be learned from together, and that there is an elite where one is asked for.

    Raises:
        ParentsDoNotFitError: models of several architectures, depths or vocabularies.
        SelectorError: a selector that finds nothing in the base.
        InvalidInputError: a job without candidates, or that does not exist.
    """
    check_sources(job, models)
    if job.elite is not None:
        generators.check_search(session, job.elite.job)
