"""Score a finalist or a parent on the held-out items, and take the digest of its weights while they are in place."""

from __future__ import annotations

from core.records import StepRecord
from merging.resident import weights_digest
from store import jobs, steps, tasks, trials
from workers.heart import Heart
from workers.runner.bench import Bench
from workers.runner.scoring import place


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Read the held-out set once for this candidate; reads are counted.

    Raises:
        CancelledError, LeaseLostError: the step is no longer ours.
    """
    with bench.database.reading() as session:
        trial = trials.get(session, str(step.trial_id))
        job = jobs.get(session, trial.job_id)
    known = bench.models_of(job)
    built = bench.resident(known).build(trial.resolved)
    digest = weights_digest(built)
    candidate = place(bench, step, heart, job, trial.resolved, known)
    scored = candidate.score("heldout", None)
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        trials.record_heldout(session, trial.id, scored.scores(), scored.macro(), weights_digest=digest)
        for content in job.contents.values():
            tasks.count_heldout_read(session, content)
        jobs.count(session, job.id, heldout_reads=1)
        steps.finish(session, step.id, step.fence, {"items": scored.fresh})
        steps.ensure_advance(session, job.id)
