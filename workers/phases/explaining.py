"""What a search found out: importance, sensitivity, slices, the course of the best score, who came how far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.course import Spent, best_so_far, survival
from core.jobs import SearchJob
from core.records import JobRecord, Score, StepKind, StepRecord, TrialRecord, TrialSummary, utc
from core.space_spec import GenerationFamily
from core.states import StepState, TrialState
from search.importance import importance, slices
from search.past import of_rows
from search.sensitivity import FORMULA, sensitivity
from store import events, steps, summaries, trials
from store.session import ReadSession
from workers.phases.study import Search

_COUNTED = (StepKind.RUN_TRIAL, StepKind.REFINE)


def explain(session: ReadSession, job: JobRecord) -> dict[str, Any]:
    """Everything about a job's search that its rows and its study tell. Held-out items play no part.

    Scores that people see are accuracies on search items; importance, sensitivity and slices go by the scores that the
    sampler was told (smoothed and paired, see `search.scores`).
    """
    search = Search.of(session, job)
    every, done = summaries.of_job(session, job.id), _done(session, job.id)
    heard = trials.of_job(session, job.id, (TrialState.SCORED, TrialState.STOPPED))
    pasts = of_rows(heard)
    return {
        "format": 1,
        "job": job.id,
        "items_scored": job.items_scored,
        "results": len(pasts),
        "outside": _outside(heard),
        "importance": {"method": "PED-ANOVA", "groups": importance(search.space, pasts)},
        "sensitivity": {"formula": FORMULA, "structures": sensitivity(search.space, pasts)},
        "slices": slices(search.space, pasts),
        "best_so_far": [peak._asdict() for peak in best_so_far(_spent(done), every)],
        "rungs": [passed._asdict() for passed in survival(every, search.rungs)],
        "tasks": _by_task(job.request, every),
        "samples": _samples(session, job, every),
        "refinements": [_refinement(step) for step in done if step.kind is StepKind.REFINE],
        "seen": utc(max((step.finished_at for step in done if step.finished_at is not None), default=job.created_at)),
    }


def _outside(heard: Sequence[TrialRecord]) -> dict[str, Any]:
    """The candidates that importance, sensitivity and slices leave out, and whether the leader is one of them.

    A recipe refined tensor by tensor has more values than the space has. The space's values next to it would make
    another candidate, whose score nobody measured: so it is named here and enters nothing.
    """
    candidates = [trial for trial in heard if trial.origin != "parent"]
    left_out = [trial for trial in candidates if trial.values is None]
    full = [trial for trial in candidates if trial.state is TrialState.SCORED and trial.macro is not None]
    leader = min(full, key=lambda trial: (-(trial.macro or 0.0), trial.number), default=None)
    return {
        "trials": [trial.number for trial in left_out],
        "leads": leader is not None and leader.values is None,
        "reason": "values by tensor are no candidate of the space: scored, raced and proved, but in none of the fits",
    }


def _done(session: ReadSession, job_id: str) -> list[StepRecord]:
    return steps.of_job(session, job_id, kinds=_COUNTED, states=(StepState.DONE,))


def _spent(done: list[StepRecord]) -> list[Spent]:
    return [
        Spent(step.finished_at, int((step.result or {}).get("items", 0)))
        for step in done
        if step.finished_at is not None
    ]


def _by_task(request: SearchJob, every: list[TrialSummary]) -> list[dict[str, Any]]:
    """Per task the best parent's and the best candidates' scores, and what may be lost of it."""
    parents = [trial for trial in every if trial.origin == "parent" and trial.macro is not None]
    full = [trial for trial in every if trial.origin != "parent" and trial.state is TrialState.SCORED]
    best_parent = max(parents, key=lambda trial: (trial.scored_items, trial.macro or 0.0), default=None)
    best = sorted(full, key=lambda trial: (-(trial.macro or 0.0), trial.number))[: request.racing.finalists]
    found = []
    for spec in request.objective.tasks:
        theirs = _score(best_parent.scores if best_parent else (), spec.task)
        ours = [{"number": trial.number, "score": _score(trial.scores, spec.task)} for trial in best]
        found.append({"task": spec.task, "floor": spec.floor, "best_parent": theirs, "candidates": ours})
    return found


def _samples(session: ReadSession, job: JobRecord, every: list[TrialSummary]) -> list[dict[str, Any]]:
    """Per arm of weight generation how many samples were proposed, how they fared, and how many came to the finals."""
    family = next((f for f in job.request.space.families if isinstance(f, GenerationFamily)), None)
    if family is None:
        return []
    noted = events.of_kind(session, job.id, "finalists")
    ranked = set(noted[-1].payload["ranked"]) if noted else set()
    found = []
    for arm in family.arms:
        mine = [trial for trial in every if trial.family == "generation" and trial.method == arm]
        full = [trial.macro for trial in mine if trial.state is TrialState.SCORED and trial.macro is not None]
        found.append(
            {
                "arm": arm,
                "candidates": len(mine),
                "failed": sum(trial.state is TrialState.FAILED for trial in mine),
                "in_full": len(full),
                "best": max(full, default=None),
                "finalists": sum(trial.id in ranked for trial in mine),
            }
        )
    return found


def _score(scores: tuple[Score, ...], task: str) -> float | None:
    return next((score.value for score in scores if score.task == task), None)


def _refinement(step: StepRecord) -> dict[str, Any]:
    """A refinement's way: where it began, and its loss and score against items."""
    result = step.result or {}
    named = {name: step.payload.get(name) for name in ("number", "structure", "granularity")}
    kept = {name: result.get(name) for name in ("coefficients", "items", "seconds", "ended")}
    return {**named, **kept, "trajectory": result.get("trajectory", [])}
