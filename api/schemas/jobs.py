"""Jobs on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.failures import FailureOut
from api.schemas.trials import OPTIMISTIC, ScoreOut
from core.jobs import Budget, Job
from core.records import EventRecord, JobRecord, JobTally

EXAMPLE: dict[str, Any] = {
    "kind": "search",
    "name": "maths × code",
    "models": [
        {"name": "base", "ref": "local:nursery/base"},
        {"name": "a", "ref": "local:nursery/a"},
        {"name": "b", "ref": "local:nursery/b"},
    ],
    "space": {
        "families": [
            {"family": "merge", "methods": ["linear", "slerp", "ties"], "base": "base", "layer_groups": 2},
            {"family": "layout", "presets": ["dus"], "sources": ["a", "b"]},
        ]
    },
    "objective": {"tasks": [{"task": "arc_easy"}, {"task": "winogrande", "weight": 2.0}]},
    "budget": {"trials": 60, "item_evaluations": 90000, "seconds": 7200},
    "parallel": 2,
    "seed": 7,
}


TRAINING_EXAMPLE: dict[str, Any] = {
    "kind": "generator",
    "name": "norms of the base",
    "models": [{"name": "base", "ref": "local:nursery/base"}],
    "preset": "default",
    "training": {"selectors": ["norms"], "denoiser_steps": 1500},
}


class ExtendIn(BaseModel):
    """New limits of a job."""

    model_config = ConfigDict(extra="forbid")

    budget: Budget = Field(description="New totals; limits that are left out stay. None may end the search sooner.")


class CloneIn(BaseModel):
    """What a clone has of its own."""

    model_config = ConfigDict(extra="forbid")

    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="A merge patch (RFC 7396) over the job's request: objects are merged, lists and all else replaced, "
        "null puts the default back.",
        examples=[{"seed": 8, "budget": {"trials": 120}}],
    )
    warm_start: bool = Field(default=False, description="Begin with the candidates of the job that is cloned.")


class BestOut(BaseModel):
    """The leading trial on search items."""

    trial_id: str
    number: int
    label: str
    macro: float = Field(description=f"On search items: {OPTIMISTIC}.")
    stderr: float
    scored_items: int


class BudgetUse(BaseModel):
    """How much of a limit is used; the search ends when one of them is."""

    limit: Literal["trials", "item_evaluations", "seconds", "device_seconds", "training_steps"]
    used: float
    allowed: float
    share: float = Field(description="Used part, from 0 to 1.")


class ParentOut(BaseModel):
    """A parent's own scores on the items candidates are scored on."""

    trial_id: str
    label: str
    state: str
    scored_items: int
    scores: tuple[ScoreOut, ...]
    macro: float | None
    macro_heldout: float | None


class TrainingOut(BaseModel):
    """How the training of a generator goes."""

    steps: int = Field(description="In all, of both stages.")
    done: int
    loss: float | None = Field(description="The last one.")
    losses: tuple[tuple[int, float], ...] = Field(description="Steps done, and the loss there.")
    seconds: float | None = Field(description="What the finished training took.")
    generator: str | None = Field(description="The digest of what came of it.")
    metrics: dict[str, Any] | None = Field(description="What was measured of it.")


class GeneratorOut(BaseModel):
    """The generator of weights that a search trains itself."""

    state: Literal["awaited", "training", "ready", "failed", "not trained"] = Field(
        description="`ready`: its family is open. `failed`: the search goes on without it. `not trained`: the search "
        "ended before."
    )
    train_after: int = Field(description="Candidates that must have ended with a score.")
    ended: int = Field(description="Candidates that have.")
    elite: tuple[int, ...] = Field(description="Numbers of the candidates that it learns from, the best first.")
    training: TrainingOut = Field(description="How its training goes.")
    artifact: str | None
    failure: FailureOut | None


class TaskOut(BaseModel):
    """A benchmark of the job; counts are null until its content was inspected."""

    task: str
    metric: str
    weight: float
    num_fewshot: int
    content_digest: str | None
    search_items: int | None
    heldout_items: int | None


class Progress(BaseModel):
    """How far a job is.

    Candidates scored on fewer items than the leaders are not compared with them.
    """

    trials: dict[str, int] = Field(description="Candidates by state; parents are not counted.")
    budget: tuple[BudgetUse, ...]
    items_scored: int
    items_per_second: float | None = Field(description="Items newly scored per second, since the job started running.")
    seconds: float = Field(description="Since the job started running.")
    eta_seconds: float | None = Field(description="Until the first limit is reached, at the pace so far.")
    best: BestOut | None
    best_parent: BestOut | None
    parents: tuple[ParentOut, ...]
    heldout_reads: int = Field(description="Candidates of this job that were scored on held-out items.")


class JobOut(BaseModel):
    """A job in a list."""

    id: str
    kind: str
    name: str
    state: str
    trials: dict[str, int] = Field(description="Candidates by state; parents are not counted.")
    best: float | None = Field(description=f"Best macro score on search items: {OPTIMISTIC}.")
    best_parent: float | None
    verdict: str | None = Field(description="`gain`, `no gain` or `worse`, once confirmed.")
    failure: FailureOut | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: JobRecord, tally: JobTally) -> Self:
        """The record on the wire."""
        return cls(
            id=job.id,
            kind=job.kind,
            name=job.name,
            state=job.state.value,
            trials=tally.states,
            best=tally.best,
            best_parent=tally.parent,
            verdict=None if job.verdict is None else str(job.verdict.get("verdict")),
            failure=FailureOut.of(job.failure),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobDetail(BaseModel):
    """A job with its progress, its verdict and what came of it."""

    id: str
    kind: str
    name: str
    state: str
    request: Job
    progress: Progress
    verdict: dict[str, Any] | None = Field(description="The confirmation's result, on held-out items.")
    tasks: tuple[TaskOut, ...]
    fingerprints: dict[str, str]
    artifacts: tuple[str, ...] = Field(description="Its checkpoints, or its generator.")
    explanation: str | None = Field(description="The artifact of its newest explanation.")
    training: TrainingOut | None = Field(description="How the training of a generator goes; null of other jobs.")
    generator: GeneratorOut | None = Field(description="What becomes of a search's own generator; null without one.")
    failure: FailureOut | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(
        cls,
        job: JobRecord,
        progress: Progress,
        tasks: tuple[TaskOut, ...],
        artifacts: tuple[str, ...],
        explanation: str | None = None,
        training: TrainingOut | None = None,
        generator: GeneratorOut | None = None,
    ) -> Self:
        """The record on the wire."""
        return cls(
            id=job.id,
            kind=job.kind,
            name=job.name,
            state=job.state.value,
            request=job.posted,
            training=training,
            generator=generator,
            progress=progress,
            verdict=job.verdict,
            tasks=tasks,
            fingerprints=job.fingerprints,
            artifacts=artifacts,
            explanation=explanation,
            failure=FailureOut.of(job.failure),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class EventOut(BaseModel):
    """Something that happened to a job; ids rise."""

    id: int
    job_id: str
    kind: str
    payload: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, event: EventRecord) -> Self:
        """The record on the wire."""
        return cls(**event.model_dump())
