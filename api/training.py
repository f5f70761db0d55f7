"""The training of a generator, of a job of its own or of a search, as the API and the dashboard tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from api.schemas.failures import FailureOut
from api.schemas.jobs import BudgetUse, GeneratorOut, JobDetail, Progress, TrainingOut
from core.records import Failure, JobRecord, StepKind, TrialSummary
from core.states import JobState, StepState, TrialState
from store import artifacts, events, generators, steps
from store.session import ReadSession


def training_detail(s: ReadSession, job: JobRecord) -> JobDetail:
    """A training with how far it is, as of now."""
    told = training_of(s, job)
    seconds = job.running_seconds(datetime.now(UTC))
    share = told.done / told.steps
    use = BudgetUse(limit="training_steps", used=told.done, allowed=told.steps, share=share)
    running = job.state is JobState.RUNNING and 0 < share < 1
    progress = Progress(
        trials={},
        budget=(use,),
        items_scored=0,
        items_per_second=None,
        seconds=seconds,
        eta_seconds=seconds * (1 - share) / share if running else None,
        best=None,
        best_parent=None,
        parents=(),
        heldout_reads=0,
    )
    kept = tuple(artifact.id for artifact in artifacts.of_job(s, job.id))
    return JobDetail.of(job, progress, (), kept, training=told)


def training_of(s: ReadSession, job: JobRecord) -> TrainingOut:
    """Losses so far, and once it has ended what came of it."""
    lesson = job.posted.lesson
    assert lesson is not None
    # A training that was interrupted tells some of its steps twice: the last word counts.
    told = {int(event.payload["done"]): event.payload for event in events.of_kind(s, job.id, generators.PROGRESS)}
    losses = tuple((done, float(told[done]["loss"])) for done in sorted(told))
    ended = steps.of_job(s, job.id, kinds=(StepKind.TRAIN_GENERATOR,))
    result = (ended[-1].result or {}) if ended else {}
    return TrainingOut(
        steps=lesson.settings.steps,
        done=losses[-1][0] if losses else 0,
        loss=losses[-1][1] if losses else None,
        losses=losses,
        seconds=result.get("seconds"),
        generator=result.get("digest"),
        metrics=result.get("metrics"),
    )


def generator_of(s: ReadSession, job: JobRecord, trials: Sequence[TrialSummary]) -> GeneratorOut | None:
    """What becomes of a search's own generator; None where it has none."""
    family = job.request.sampled
    if family is None or family.own is None:
        return None
    planned, failed = (events.of_kind(s, job.id, kind) for kind in (generators.PLANNED, generators.FAILED))
    ready = generators.ready(s, job)
    failure = Failure(code=failed[0].payload["code"], message=failed[0].payload["message"]) if failed else None
    ended = (TrialState.SCORED, TrialState.STOPPED)
    return GeneratorOut(
        state="failed" if failed else "ready" if ready else _state(s, job),
        train_after=family.own.train_after,
        ended=sum(trial.state in ended and trial.origin != "parent" for trial in trials),
        elite=tuple(planned[0].payload["elite"]) if planned else (),
        training=training_of(s, job),
        artifact=None if ready is None else str(ready.payload["artifact"]),
        failure=FailureOut.of(failure),
    )


def _state(s: ReadSession, job: JobRecord) -> Literal["awaited", "training", "not trained"]:
    """Of a generator of which nobody knows yet what will become of it."""
    ordered = steps.of_job(s, job.id, kinds=(StepKind.TRAIN_GENERATOR,))
    if ordered and ordered[-1].state is not StepState.CANCELLED:
        return "training"
    searching = (JobState.QUEUED, JobState.PREPARING, JobState.RUNNING, JobState.PAUSED)
    return "awaited" if not ordered and job.state in searching else "not trained"
