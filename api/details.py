"""A job with all that the API and the dashboard tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from api.progress import progress_of
from api.schemas.jobs import JobDetail, TaskOut
from api.training import generator_of, training_detail
from core.records import JobRecord, StepKind, TrialSummary
from store import artifacts, explanations, steps, tasks
from store.session import ReadSession


def detail_of(s: ReadSession, job: JobRecord, trials: Sequence[TrialSummary]) -> JobDetail:
    """A job with its progress over all of its trials, as of now."""
    if job.training is not None:
        return training_detail(s, job)
    besides = sum(steps.seconds_of(s, job.id, kind) for kind in (StepKind.REFINE, StepKind.TRAIN_GENERATOR))
    progress = progress_of(job, trials, datetime.now(UTC), other_seconds=besides)
    kept = artifacts.of_job(s, job.id)
    checkpoints = tuple(artifact.id for artifact in kept if artifact.kind != explanations.KIND)
    told = [artifact.id for artifact in kept if artifact.kind == explanations.KIND]
    generator = generator_of(s, job, trials)
    explained = told[-1] if told else None
    return JobDetail.of(job, progress, _tasks(s, job), checkpoints, explained, generator=generator)


def _tasks(s: ReadSession, job: JobRecord) -> tuple[TaskOut, ...]:
    found = []
    for spec in job.request.objective.tasks:
        digest = job.contents.get(spec.task)
        content = tasks.get(s, spec.task, digest) if digest else None
        found.append(
            TaskOut(
                task=spec.task,
                metric=spec.metric_name,
                weight=spec.weight,
                num_fewshot=spec.num_fewshot,
                content_digest=digest,
                search_items=len(content.side("search")) if content else None,
                heldout_items=len(content.side("heldout")) if content else None,
            )
        )
    return tuple(found)
