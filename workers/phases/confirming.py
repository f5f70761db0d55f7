"""The proof: finalists ranked before held-out is opened, then compared with the best parent on held-out items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.outcomes import Outcomes
from core.records import Failure, JobRecord, Score, StepKind, TrialRecord
from core.settings import Settings
from core.states import JobState, StepState
from core.statistics import Verdict, confirm
from search.finalists import best_parent, finalists
from store import events, jobs, outcomes, steps, tasks, trials
from store.session import ReadSession, Session
from workers.phases import exporting
from workers.phases.study import job_device


def begin(session: Session, settings: Settings, job: JobRecord) -> None:
    """Rank, remember the ranking, and order the reading of held-out items for finalists and parents."""
    every = trials.of_job(session, job.id)
    ranked = finalists([t for t in every if t.origin != "parent"], job.request.racing.finalists)
    parents = [trial for trial in every if trial.origin == "parent"]
    reference = best_parent(parents)
    jobs.move(session, job.id, JobState.CONFIRMING)
    events.append(session, job.id, "finalists", {"ranked": [t.id for t in ranked], "reference": reference.id})
    device = job_device(session, job)
    for trial in (*ranked, *parents):
        steps.add(session, StepKind.CONFIRM, device, job_id=job.id, trial_id=trial.id)


def look(session: Session, settings: Settings, job: JobRecord) -> None:
    """Once everything is read: the verdict, and what follows from it."""
    readings = steps.of_job(session, job.id, kinds=(StepKind.CONFIRM,))
    if any(not step.state.final for step in readings):
        return
    failed = next((step for step in readings if step.state is not StepState.DONE), None)
    if failed is not None:
        jobs.fail(session, job.id, failed.failure or Failure(code="internal", message="a confirmation failed"))
        return
    ranked, reference = _ranking(session, job)
    verdict = _verdict(session, job, ranked, reference)
    jobs.set_verdict(session, job.id, verdict)
    wanted = job.request.export.when
    chosen = ranked[0] if ranked else reference
    if wanted == "always" or (wanted == "gain" and verdict["verdict"] == "gain"):
        exporting.begin(session, job, chosen)
    else:
        jobs.move(session, job.id, JobState.SUCCEEDED)


def _ranking(session: ReadSession, job: JobRecord) -> tuple[list[TrialRecord], TrialRecord]:
    """The ranking as it was written down before held-out items were read."""
    noted = next(e for e in events.of_kind(session, job.id, "finalists"))
    return [trials.get(session, i) for i in noted.payload["ranked"]], trials.get(session, noted.payload["reference"])


def _verdict(
    session: ReadSession, job: JobRecord, ranked: Sequence[TrialRecord], reference: TrialRecord
) -> dict[str, Any]:
    names = [spec.task for spec in job.request.objective.tasks]
    found = confirm(
        [(trial.id, _heldout(session, job, trial)) for trial in ranked],
        (reference.id, _heldout(session, job, reference)),
        names,
        job.request.objective.shares,
    )
    return told(found, job, ranked, reference, _reads(session, job))


def _heldout(session: ReadSession, job: JobRecord, trial: TrialRecord) -> list[Outcomes]:
    """A candidate's held-out outcomes, task by task."""
    read = []
    for spec in job.request.objective.tasks:
        numbers = tasks.get(session, spec.task, job.contents[spec.task]).side("heldout")
        read.append(outcomes.load(session, trial.recipe_digest, job.fingerprints[spec.task]).select(numbers))
    return read


def _reads(session: ReadSession, job: JobRecord) -> int:
    """How many candidates have ever been read on these held-out items (the most-read task counts)."""
    return max(tasks.heldout_reads(session, content) for content in job.contents.values())


def told(
    found: Verdict, job: JobRecord, ranked: Sequence[TrialRecord], reference: TrialRecord, reads: int
) -> dict[str, Any]:
    """The verdict as stored and shown. Without any finalist the reference stands in, at no difference."""
    first = found.comparisons[0] if found.comparisons else None
    winner = ranked[0] if ranked else reference
    return {
        "verdict": found.verdict,
        "winner": _who(winner),
        "reference": _who(reference),
        "points": found.points if found.points is not None else 0.0,
        "low": found.low if found.low is not None else 0.0,
        "high": found.high if found.high is not None else 0.0,
        "p": found.p_one_sided if found.p_one_sided is not None else 1.0,
        "alpha": found.alpha,
        "tasks": [
            {
                "task": task.task,
                "metric": spec.metric_name,
                "winner": _score(winner, task.task),
                "reference": _score(reference, task.task),
                "points": task.points,
                "mcnemar_p": task.p_two_sided,
                "n": task.n,
            }
            for task, spec in zip(first.tasks if first else (), job.request.objective.tasks, strict=False)
        ],
        "tested": [
            {
                "trial_id": c.candidate,
                "number": trial.number,
                "points": c.points,
                "low": c.low,
                "high": c.high,
                "p": c.p_one_sided,
                "tested": c.tested,
                "passed": c.gain,
            }
            for c, trial in zip(found.comparisons, ranked, strict=True)
        ],
        "heldout_reads": reads,
    }


def _who(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial_id": trial.id,
        "number": trial.number,
        "label": trial.label,
        "macro_search": trial.macro,
        "macro_heldout": trial.macro_heldout,
    }


def _score(trial: TrialRecord, task: str) -> dict[str, Any] | None:
    found: Score | None = next((score for score in trial.heldout if score.task == task), None)
    return {"value": found.value, "stderr": found.stderr, "n": found.n} if found else None
