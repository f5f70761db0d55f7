"""Score a finalist or a parent on held-out items, and take the digest of its weights while they are in place."""

from __future__ import annotations

from core.records import JobRecord, StepRecord
from merging.resident import weights_digest
from store import events, jobs, steps, tasks, trials
from workers.heart import Heart
from workers.runner.bench import Bench
from workers.runner.scoring import place

#: Event: held-out items were opened for a candidate, by the step that it names.
OPENED = "heldout_opened"


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Read the held-out set, the part of it that was kept back, or that of other tasks, once; reads are counted.

    Raises:
        CancelledError, LeaseLostError: the step is no longer ours.
    """
    with bench.database.reading() as session:
        trial = trials.get(session, str(step.trial_id))
        job = jobs.get(session, trial.job_id)
    part = step.payload.get("part")
    job = job.beyond if part == "also" else job
    candidate = place(bench, step, heart, job, trial.resolved, bench.models_of(job))
    digest = weights_digest(candidate.built)
    candidate.fingerprints()  # What must not be scored here is refused before it counts as read.
    _open(bench, step, job)
    scored = candidate.score("final" if part == "final" else "heldout", None)
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        if part is None:
            trials.record_heldout(session, trial.id, scored.scores(), scored.macro(), weights_digest=digest)
        steps.finish(session, step.id, step.fence, {"items": scored.fresh})
        steps.ensure_advance(session, job.id)


def _open(bench: Bench, step: StepRecord, job: JobRecord) -> None:
    """Count the reading before its first outcome is stored, and once however often the step starts anew.

    Outcomes stay, block by block, whatever becomes of the step; a count at the end would miss those of one that fails.
    """
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        if any(event.payload["step"] == step.id for event in events.of_kind(session, job.id, OPENED)):
            return
        events.append(session, job.id, OPENED, {"step": step.id, "trial": step.trial_id})
        for content in job.documents.values():
            tasks.count_heldout_read(session, content)
        jobs.count(session, job.id, heldout_reads=1)
