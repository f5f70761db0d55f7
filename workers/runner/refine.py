"""Follow the gradient of the objective from a candidate's coefficients, and return what was found on the way."""

from __future__ import annotations

import time
from typing import Any

from core.errors import TaskError
from core.jobs import SearchJob
from core.outcomes import Outcomes
from core.recipe import ResolvedRecipe, resolve
from core.records import JobRecord, StepRecord
from core.refinement import PROGRESS
from evaluation.scorer import Scorer
from store import events, jobs, outcomes, steps
from workers.heart import Heart
from workers.provenance import provenance
from workers.runner.bench import Bench
from workers.runner.descent import Look, Pace, Walk, walk
from workers.runner.refining import Ground, divide, rounded


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Refine the candidate that the step names.

    Raises:
        TrialError: a candidate on the way cannot be built or read.
        CancelledError, LeaseLostError: the step is no longer ours; what it cost so far is counted.
    """
    started = time.monotonic()
    with bench.database.reading() as session:
        job = jobs.get(session, str(step.job_id))
    ground = ground_of(bench, job, step, heart)
    counted = 0

    def told(look: Look) -> None:
        nonlocal counted
        with bench.database.transaction() as session:
            steps.guard(session, step.id, step.fence)
            jobs.count(session, job.id, items=look.fresh - counted)
            events.append(session, job.id, PROGRESS, {"step_id": step.id, **_told(look), **_named(step)})
        counted = look.fresh

    found = walk(ground.bounds, pace_of(job.request, step.payload), loss=ground.loss, score=ground.score, told=told)
    seconds = time.monotonic() - started
    result = {**findings(ground, found, fine=step.payload["granularity"] == "tensor"), "seconds": round(seconds, 3)}
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        steps.finish(session, step.id, step.fence, {**result, "provenance": provenance(bench.device)})
        steps.ensure_advance(session, job.id)


def ground_of(bench: Bench, job: JobRecord, step: StepRecord, heart: Heart) -> Ground:
    """What the step's refinement walks on.

    Raises:
        TaskError: a task's documents changed since the job began.
    """
    known, rules, payload = bench.models_of(job), job.request.refine, step.payload
    space = job.request.search_space(min(model.header.layers for model in known.values()))
    scorer = bench.scorer(job, resolve(space.fill(payload["values"]), known), known)
    _check_contents(job, scorer)
    # Refinements of one study take their minibatches in orders of their own.
    stream = f"{payload['granularity']}:{payload['structure']}"
    items = divide(
        job.request.objective,
        scorer,
        job.request.seed,
        kept_share=rules.kept_share,
        kept_most=rules.kept_most,
        stream=stream,
    )
    return Ground(
        space,
        payload["values"],
        known,
        bench.resident(known),
        scorer,
        items,
        fine=payload["granularity"] == "tensor",
        batch=rules.batch,
        temperature=rules.temperature,
        memory=Kept(bench, step, scorer),
        cancelled=lambda: heart.cancelled,
    )


class Kept:
    """Outcomes as the database has them, or would have: under this runner's fingerprints."""

    def __init__(self, bench: Bench, step: StepRecord, scorer: Scorer) -> None:
        self._database, self._step, self._scorer = bench.database, step, scorer
        self._fingerprints = bench.fingerprints(scorer)

    def known(self, recipe: ResolvedRecipe, task: str) -> Outcomes:
        """What was scored of a candidate."""
        with self._database.reading() as session:
            return outcomes.load(session, recipe.digest(), self._fingerprints[task])

    def keep(self, recipe: ResolvedRecipe, task: str, found: Outcomes) -> None:
        """So that the candidate, should it enter the race, is scored on the rest alone.

        Raises:
            LeaseLostError: the step is no longer ours.
        """
        with self._database.transaction() as session:
            steps.guard(session, self._step.id, self._step.fence)
            outcomes.complete(
                session,
                recipe_digest=recipe.digest(),
                fingerprint=self._fingerprints[task],
                task=task,
                documents=self._scorer.prepared.tasks[task].content.documents,
                outcomes=found,
            )


def pace_of(request: SearchJob, payload: dict[str, Any]) -> Pace:
    """How the step's refinement walks."""
    return Pace(rate=request.refine.rate, max_items=int(payload["max_items"]))


def findings(ground: Ground, found: Walk, *, fine: bool) -> dict[str, Any]:
    """A walk as the step's result: `values` of the space or `recipes` outside it, and the way that led there."""
    points = list(dict.fromkeys(rounded(point, ground.bounds) for point in found.points()))
    if fine:
        told: dict[str, Any] = {"recipes": [ground.recipe_at(point).model_dump(mode="json") for point in points]}
    else:
        told = {"values": [ground.values_at(point) for point in points]}
    return {
        **told,
        "coefficients": len(ground.axes),
        "items": found.items,
        "ended": found.ended,
        "trajectory": [_told(look) for look in found.looks],
    }


def _told(look: Look) -> dict[str, Any]:
    return {
        "step": look.step,
        "loss": None if look.loss is None else round(look.loss, 6),
        "score": round(look.score, 6),
        "items": look.fresh,
        "seconds": round(look.seconds, 3),
    }


def _named(step: StepRecord) -> dict[str, Any]:
    return {name: step.payload[name] for name in ("number", "granularity")}


def _check_contents(job: JobRecord, scorer: Scorer) -> None:
    for task, content in job.documents.items():
        if scorer.prepared.tasks[task].content.content_digest != content:
            raise TaskError(f"the documents of task {task!r} changed since the job began: post a new job", where=task)
