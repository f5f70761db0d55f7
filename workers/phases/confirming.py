"""The proof: finalists ranked before held-out is opened, then compared with the best parent on held-out items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
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
    """Once everything is read: the verdict, and what follows from it.

    The job fails if the reference could not be read. Anybody else who could not is recorded in the verdict.
    """
    readings = steps.of_job(session, job.id, kinds=(StepKind.CONFIRM,))
    if any(not step.state.final for step in readings):
        return
    lost = Failure(code="internal", message="a confirmation failed")
    failures = {str(step.trial_id): step.failure or lost for step in readings if step.state is not StepState.DONE}
    ranked, reference = _ranking(session, job)
    if reference.id in failures:
        jobs.fail(session, job.id, failures[reference.id])
        return
    verdict = _verdict(session, job, ranked, reference, failures)
    jobs.set_verdict(session, job.id, verdict)
    wanted = job.request.export.when
    if wanted == "always" or (wanted == "gain" and verdict["verdict"] == "gain"):
        exporting.begin(session, job, trials.get(session, verdict["winner"]["trial_id"]))
    else:
        jobs.move(session, job.id, JobState.SUCCEEDED)


def _ranking(session: ReadSession, job: JobRecord) -> tuple[list[TrialRecord], TrialRecord]:
    """The ranking as it was written down before held-out items were read."""
    noted = next(e for e in events.of_kind(session, job.id, "finalists"))
    return [trials.get(session, i) for i in noted.payload["ranked"]], trials.get(session, noted.payload["reference"])


def _verdict(
    session: ReadSession,
    job: JobRecord,
    ranked: Sequence[TrialRecord],
    reference: TrialRecord,
    failures: Mapping[str, Failure],
) -> dict[str, Any]:
    read = [trial for trial in ranked if trial.id not in failures]
    found = confirm(
        [(trial.id, _heldout(session, job, trial)) for trial in read],
        (reference.id, _heldout(session, job, reference)),
        [spec.task for spec in job.request.objective.tasks],
        job.request.objective.shares,
    )
    found = cut_off(found, [trial.id for trial in ranked])
    lost = [trials.get(session, id) for id in failures]
    return {
        **told(found, job, read, reference, _reads(session, job)),
        "failed": [
            {"trial_id": t.id, "number": t.number, "code": failures[t.id].code, "message": failures[t.id].message}
            for t in sorted(lost, key=lambda trial: trial.number)
        ],
        "reason": _reason(ranked, failures),
    }


def cut_off(found: Verdict, ranked: Sequence[str]) -> Verdict:
    """The verdict when some of the `ranked` could not be read: the fixed sequence ends at the first of them.

    Their order was written down before anything was read. A hypothesis that cannot be tested is one that is not
    rejected, so nobody after it is tested; without the first-ranked there is nothing to say.
    """
    compared = {comparison.candidate for comparison in found.comparisons}
    reached = set(takewhile(compared.__contains__, ranked))
    comparisons = tuple(c if c.candidate in reached else c.evolve(tested=False, gain=False) for c in found.comparisons)
    if ranked and not reached:
        return Verdict(verdict="no gain", reference=found.reference, alpha=found.alpha, comparisons=comparisons)
    return found.evolve(comparisons=comparisons)


def _reason(ranked: Sequence[TrialRecord], failures: Mapping[str, Failure]) -> str | None:
    """Why there is no comparison, if so."""
    if not ranked:
        return "no candidate was scored in full"
    if (failure := failures.get(ranked[0].id)) is None:
        return None
    return f"the first-ranked candidate, number {ranked[0].number}, could not be read: {failure.message}"


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
    """The verdict as stored and shown. Without a first-ranked finalist the reference stands in, at no difference.

    Args:
        ranked: the finalists that were read, in rank order.
    """
    first = found.comparisons[0] if found.points is not None else None
    winner = ranked[0] if first else reference
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
