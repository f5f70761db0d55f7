"""Build a candidate and score it up to its target; then wait for the proposer's word."""

from __future__ import annotations

import time

from core.records import StepRecord, TrialRecord
from core.states import TrialState
from store import jobs, steps, trials
from workers.heart import Heart
from workers.provenance import provenance
from workers.runner.bench import Bench
from workers.runner.gate import admitted


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Run one rung of a trial.

    Raises:
        TrialError: the candidate cannot be built or scored.
        CancelledError, LeaseLostError: the step is no longer ours.
    """
    started = time.monotonic()
    trial = _begin(bench, step)
    if trial is None:
        return
    with bench.database.reading() as session:
        job = jobs.get(session, trial.job_id)
    candidate = admitted(bench, step, heart, job, trial.resolved, bench.models_of(job))
    begun = time.monotonic()
    scored = candidate.score("search", trial.target_items)
    done = time.monotonic()
    # The models that a job begins with tell what its dtype does to outcomes.
    first = trial.origin == "parent" and not trial.scored_items
    precision = candidate.precision(scored) if first else {}
    took = {"build_seconds": round(candidate.build_seconds, 4), "score_seconds": round(done - begun, 4)}
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        trials.record(
            session,
            trial.id,
            scored_items=trial.target_items,
            scores=scored.scores(),
            macro=scored.macro(),
            seconds_added=done - started,
            provenance={**provenance(bench.device), **took, **precision, "fresh_items": scored.fresh},
        )
        trials.move(session, trial.id, TrialState.WAITING)
        steps.finish(session, step.id, step.fence, {"items": scored.fresh, "seconds": round(done - started, 3), **took})
        steps.ensure_advance(session, trial.job_id)


def _begin(bench: Bench, step: StepRecord) -> TrialRecord | None:
    """The trial, now running; None where there is nothing left to do for it."""
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        trial = trials.get(session, str(step.trial_id))
        if trial.state.final or trial.scored_items >= trial.target_items:
            steps.finish(session, step.id, step.fence, {"items": 0})
            return None
        # A step taken over from a worker that died finds its trial running already.
        return trial if trial.state is TrialState.RUNNING else trials.move(session, trial.id, TrialState.RUNNING)
