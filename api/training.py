"""The training of a generator, as the API and the dashboard tell of it."""

from __future__ import annotations

from datetime import UTC, datetime

from api.schemas.jobs import BudgetUse, JobDetail, Progress, TrainingOut
from core.records import JobRecord, StepKind
from core.states import JobState
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
    assert job.training is not None
    # A training that was interrupted tells some of its steps twice: the last word counts.
    told = {int(event.payload["done"]): event.payload for event in events.of_kind(s, job.id, generators.PROGRESS)}
    losses = tuple((done, float(told[done]["loss"])) for done in sorted(told))
    ended = steps.of_job(s, job.id, kinds=(StepKind.TRAIN_GENERATOR,))
    result = (ended[-1].result or {}) if ended else {}
    return TrainingOut(
        steps=job.training.settings.steps,
        done=losses[-1][0] if losses else 0,
        loss=losses[-1][1] if losses else None,
        losses=losses,
        seconds=result.get("seconds"),
        generator=result.get("digest"),
        metrics=result.get("metrics"),
    )
