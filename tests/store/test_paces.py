from core.records import Device, StepKind
from core.states import TrialState
from store import paces, steps, trials
from tests.store.makers import claim, new_job, new_trial, put, score


def scored(s, job, result, provenance):
    """A trial whose step ended with this result."""
    trial = new_trial(s, job.id)
    step = claim(s, Device.CPU)
    trials.move(s, trial.id, TrialState.RUNNING)
    trials.record(
        s, trial.id, scored_items=50, scores=[score(0.5)], macro=0.5, seconds_added=1.0, provenance=provenance
    )
    steps.finish(s, step.id, step.fence, result)
    return trial


def test_steps_that_scored_something_tell_their_pace_newest_first(database):
    with database.transaction() as s:
        job = new_job(s)
        scored(
            s, job, {"items": 100, "seconds": 5.0, "build_seconds": 1.0, "score_seconds": 3.5}, {"device": "cpu (x)"}
        )
        scored(s, job, {"items": 0, "seconds": 5.0}, {"device": "cpu (x)"})
        scored(s, job, {"items": 10, "seconds": 5.0}, {"device": "cpu (x)", "build_seconds": 2.0})
        scored(s, job, {"items": 10, "seconds": 5.0}, {})
        new_trial(s, job.id)
        for place, step in enumerate(steps.of_job(s, job.id, kinds=(StepKind.RUN_TRIAL,))):
            if step.state.final:
                put(s, "steps", step.id, finished_at=f"2026-01-01T00:00:0{place}Z")
    with database.reading() as s:
        assert paces.recent(s) == [
            paces.Timed(job.id, "cpu (x)", 10, 3.0, 2.0),
            paces.Timed(job.id, "cpu (x)", 100, 3.5, 1.0),
        ]
        assert len(paces.recent(s, limit=1)) == 1
