"""The proof: finalists ranked before held-out is opened, then compared with the best parent on held-out items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from core.outcomes import Outcomes
from core.records import Failure, JobRecord, Score, StepKind, StepRecord, TrialRecord
from core.settings import Settings
from core.space_spec import GenerationFamily
from core.states import JobState, StepState
from core.statistics import Verdict, confirm
from core.tasks import Part, part_of
from search.finalists import PARENT, best_parent, candidates, finalists, posterior
from store import events, jobs, outcomes, steps, tasks, trials
from store.session import ReadSession, Session
from workers.phases import annex, exporting, hearing
from workers.phases.study import Search, job_device, orders_of

#: Payload of a step that reads what was kept back of the held-out items.
FINAL = {"part": "final"}
#: The same of tasks that the search never read.
ALSO = {"part": "also"}


def begin(session: Session, settings: Settings, job: JobRecord) -> None:
    """Rank, remember the ranking, and order the reading of held-out items for the first finalist and the parents."""
    every, search = trials.of_job(session, job.id), Search.of(session, job)
    parents = [trial for trial in every if trial.origin == PARENT]
    best = best_parent(parents)
    kept, below = annex.split_by_floors(every, best, job.request.objective.tasks)
    estimates = posterior(search.space, every) if search.strategy.recommends == "posterior" else None
    ranked = finalists(kept, job.request.racing.finalists, estimates)
    jobs.move(session, job.id, JobState.CONFIRMING)
    payload: dict[str, Any] = {
        "ranked": [trial.id for trial in ranked],
        "reference": best.id,
        "claimed": annex.claims(ranked, estimates, hearing.reference(session, search, trials.briefs(session, job.id))),
    }
    if below:
        payload["below_floor"] = below
    events.append(session, job.id, "finalists", payload)
    for trial in (*ranked[:1], *parents):
        steps.add(session, StepKind.CONFIRM, search.device, job_id=job.id, trial_id=trial.id)


def look(session: Session, settings: Settings, job: JobRecord) -> None:
    """Once everything is read: the next finalist in turn, or the verdict, what was kept back for a proven gain, and
    what follows from it.

    The job fails if the reference could not be read. Anybody else who could not is recorded in the verdict.
    """
    readings = steps.of_job(session, job.id, kinds=(StepKind.CONFIRM,))
    if any(not step.state.final for step in readings):
        return
    ranked, reference = _ranking(session, job)
    if any(step.payload for step in readings):
        _end(session, job, _completed(session, job, reference, readings))
        return
    failures = _failures(readings)
    if reference.id in failures:
        jobs.fail(session, job.id, failures[reference.id])
        return
    tried = [trial for trial in ranked if trial.id in {step.trial_id for step in readings}]
    following, device = ranked[len(tried) :], job_device(session, job)
    if following and _all_proved(session, job, tried, reference, failures):
        steps.add(session, StepKind.CONFIRM, device, job_id=job.id, trial_id=following[0].id)
        return
    verdict = _verdict(session, job, tried, reference, failures)
    verdict["unread"] = [{"trial_id": trial.id, "number": trial.number} for trial in following]
    winner, confirmation = verdict["winner"]["trial_id"], job.request.confirmation
    last = [FINAL] if verdict["verdict"] == "gain" and confirmation.final_split > 0 else []
    further = [ALSO] if confirmation.also and winner != reference.id else []
    if not last and not further:
        _end(session, job, verdict)
        return
    jobs.set_verdict(session, job.id, verdict)
    for part in (*last, *further):
        for trial_id in (winner, reference.id):
            steps.add(session, StepKind.CONFIRM, device, job_id=job.id, trial_id=trial_id, payload=dict(part))


def _failures(readings: Sequence[StepRecord]) -> dict[str, Failure]:
    """Trials that could not be read, and why."""
    lost = Failure(code="internal", message="a confirmation failed")
    return {str(step.trial_id): step.failure or lost for step in readings if step.state is not StepState.DONE}


def _end(session: Session, job: JobRecord, verdict: dict[str, Any]) -> None:
    """Write the verdict down and go on to the export that the job wants."""
    jobs.set_verdict(session, job.id, verdict)
    wanted = job.request.export.when
    if wanted == "always" or (wanted == "gain" and verdict["verdict"] == "gain"):
        exporting.begin(session, job, trials.get(session, verdict["winner"]["trial_id"]))
    else:
        jobs.move(session, job.id, JobState.SUCCEEDED)


def _completed(
    session: ReadSession, job: JobRecord, reference: TrialRecord, readings: Sequence[StepRecord]
) -> dict[str, Any]:
    """The verdict with what was read after it."""
    assert job.verdict is not None
    last, further = ([step for step in readings if step.payload == part] for part in (FINAL, ALSO))
    found = {**job.verdict, "heldout_reads": _reads(session, job)}
    if last:
        found["final"] = _last_look(session, job, reference, _failures(last))
    if further:
        found["also"] = _further(session, job.beyond, reference, _failures(further))
    return found


def _further(
    session: ReadSession, job: JobRecord, reference: TrialRecord, failures: Mapping[str, Failure]
) -> dict[str, Any]:
    """The winner on the tasks that only the confirmation reads."""
    assert job.verdict is not None
    failed = next(iter(failures.values()), None)
    if failed is not None:
        return {"code": failed.code, "message": failed.message}
    winner = trials.get(session, job.verdict["winner"]["trial_id"])
    ours, theirs = (_heldout(session, job, trial) for trial in (winner, reference))
    return {"tasks": annex.beyond(ours, theirs, job.request.objective.tasks)}


def _last_look(
    session: ReadSession, job: JobRecord, reference: TrialRecord, failures: Mapping[str, Failure]
) -> dict[str, Any]:
    """The winner on what was kept back; the verdict stands, whatever it says."""
    assert job.verdict is not None
    winner = trials.get(session, job.verdict["winner"]["trial_id"])
    failed = next(iter(failures.values()), None)
    if failed is not None:
        return {"code": failed.code, "message": failed.message}
    ours, theirs = (_heldout(session, job, trial, "final") for trial in (winner, reference))
    return annex.last_look(ours, theirs, job.request.objective.shares)


def _ranking(session: ReadSession, job: JobRecord) -> tuple[list[TrialRecord], TrialRecord]:
    """The ranking as it was written down before held-out items were read."""
    noted = _noted(session, job)
    return [trials.get(session, i) for i in noted["ranked"]], trials.get(session, noted["reference"])


def _noted(session: ReadSession, job: JobRecord) -> dict[str, Any]:
    return events.of_kind(session, job.id, "finalists")[0].payload


def _all_proved(
    session: ReadSession,
    job: JobRecord,
    tried: Sequence[TrialRecord],
    reference: TrialRecord,
    failures: Mapping[str, Failure],
) -> bool:
    """Whether the fixed sequence goes on to the next finalist: who would not be tested is not read either."""
    if any(trial.id in failures for trial in tried):
        return False
    return all(comparison.gain for comparison in _compared(session, job, tried, reference).comparisons)


def _compared(session: ReadSession, job: JobRecord, read: Sequence[TrialRecord], reference: TrialRecord) -> Verdict:
    return confirm(
        [(trial.id, _heldout(session, job, trial)) for trial in read],
        (reference.id, _heldout(session, job, reference)),
        [spec.task for spec in job.request.objective.tasks],
        job.request.objective.shares,
    )


def _verdict(
    session: ReadSession,
    job: JobRecord,
    ranked: Sequence[TrialRecord],
    reference: TrialRecord,
    failures: Mapping[str, Failure],
) -> dict[str, Any]:
    # A hypothesis that cannot be tested is one that is not rejected: it ends the sequence, at the first of all too.
    read = list(takewhile(lambda trial: trial.id not in failures, ranked))
    found = _compared(session, job, read, reference)
    lost = [trials.get(session, id) for id in failures]
    ids = [trial.id for trial in trials.briefs(session, job.id) if trial.origin == PARENT]
    parents = trials.some(session, ids)
    verdict, noted = told(found, job, read, reference, _reads(session, job)), _noted(session, job)
    return {
        **verdict,
        "claimed": noted.get("claimed", {}).get(verdict["winner"]["trial_id"]),
        "floors": _floors(session, job, read, reference) if found.comparisons else [],
        "below_floor": noted.get("below_floor", []),
        "contamination": annex.contamination(parents, job.request.objective.shares),
        "failed": [
            {"trial_id": t.id, "number": t.number, "code": failures[t.id].code, "message": failures[t.id].message}
            for t in sorted(lost, key=lambda trial: trial.number)
        ],
        **_chance(session, job, reference),
        "reason": _reason(ranked, failures, noted.get("below_floor", [])),
    }


def _chance(session: ReadSession, job: JobRecord, reference: TrialRecord) -> dict[str, Any]:
    """What the best of so many gains by chance alone, where candidates were sampled: mostly all that they gain."""
    if not any(isinstance(family, GenerationFamily) for family in job.request.space.families):
        return {}
    every = trials.of_job(session, job.id)
    specs, tried = job.request.objective.tasks, sum(t.origin != PARENT and t.macro is not None for t in every)
    full = candidates(every)[: annex.COMPARED]
    keys = [(t.recipe_digest, job.fingerprints[spec.task]) for t in (*full, reference) for spec in specs]
    known = outcomes.load_many(session, keys)
    orders = orders_of(session, job, "search")

    def answers(trial: TrialRecord) -> list[Outcomes]:
        return [
            known[trial.recipe_digest, job.fingerprints[spec.task]].select(order)
            for spec, order in zip(specs, orders, strict=True)
        ]

    return {"chance": annex.chance([answers(t) for t in full], answers(reference), job.request.objective.shares, tried)}


def _floors(
    session: ReadSession, job: JobRecord, read: Sequence[TrialRecord], reference: TrialRecord
) -> list[dict[str, Any]]:
    ours, theirs = (_heldout(session, job, trial) for trial in (read[0], reference))
    return annex.floors(ours, theirs, job.request.objective.tasks)


def _reason(ranked: Sequence[TrialRecord], failures: Mapping[str, Failure], below: Sequence[Any]) -> str | None:
    """Why there is no comparison, if so."""
    if not ranked:
        return (
            "every candidate lost more on a task than its floor allows" if below else "no candidate was scored in full"
        )
    if (failure := failures.get(ranked[0].id)) is None:
        return None
    return f"the first-ranked candidate, number {ranked[0].number}, could not be read: {failure.message}"


def _heldout(session: ReadSession, job: JobRecord, trial: TrialRecord, part: Part = "heldout") -> list[Outcomes]:
    """A candidate's outcomes on held-out items, or on what was kept back of them, task by task."""
    read = []
    for spec in job.request.objective.tasks:
        content = tasks.get(session, spec.task, job.contents[spec.task])
        numbers = part_of(content, part, job.request.confirmation.final_split)
        read.append(outcomes.load(session, trial.recipe_digest, job.fingerprints[spec.task]).select(numbers))
    return read


def _reads(session: ReadSession, job: JobRecord) -> int:
    """How many candidates have ever been read on these held-out items (the most-read task counts)."""
    return max(tasks.heldout_reads(session, content) for content in job.documents.values())


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
