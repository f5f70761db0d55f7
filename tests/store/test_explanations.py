import pytest

from core.errors import ConflictError, NotFoundError
from core.records import Device, StepKind
from core.states import JobState, TrialState
from store import artifacts, explanations, jobs, steps, trials
from tests.store.makers import claim, new_job, new_trial, rung, score


def scored(s, job):
    """A candidate with a score."""
    trial = new_trial(s, job.id)
    trials.move(s, trial.id, TrialState.RUNNING)
    return trials.record(s, trial.id, scored_items=50, scores=[score(0.5)], macro=0.5, seconds_added=1.0)


def test_an_explanation_is_asked_for_once_at_a_time_and_rung_for_where_checkpoints_are_read(database):
    with database.transaction() as s:
        job = new_job(s)
        scored(s, job)
        first = explanations.ask(s, job.id)
        assert (first.kind, first.device, first.job_id) == (StepKind.EXPLAIN, Device.NONE, None)
        assert explanations.ask(s, job.id).id == first.id
        assert ("inspect", "explain") in rung(s)
        step = claim(s, Device.NONE, kinds=(StepKind.EXPLAIN,))
        assert explanations.ask(s, job.id).id == step.id
        steps.finish(s, step.id, step.fence)
        assert explanations.ask(s, job.id).id != first.id


def test_the_end_of_a_job_does_not_cancel_its_explanation(database):
    with database.transaction() as s:
        job = new_job(s)
        scored(s, job)
        asked = explanations.ask(s, job.id)
        jobs.cancel(s, job.id)
        assert claim(s, Device.NONE, kinds=(StepKind.EXPLAIN,)).id == asked.id


def test_a_job_without_scored_candidates_cannot_be_explained_yet(database):
    with database.transaction() as s:
        job = new_job(s, JobState.RUNNING)
        new_trial(s, job.id)
        with pytest.raises(ConflictError, match="none yet"):
            explanations.ask(s, job.id)
        with pytest.raises(NotFoundError):
            explanations.ask(s, "job_none")


def test_the_newest_explanation_is_the_one_that_is_shown(database):
    with database.transaction() as s:
        job = new_job(s)
        assert explanations.latest(s, job.id) is None
        with pytest.raises(NotFoundError, match=":explain"):
            explanations.get(s, job.id)
        made = [
            artifacts.create(s, job_id=job.id, trial_id=None, kind=kind, path=path, files=(), bytes=0)
            for kind, path in (("explain", "a"), ("explain", "b"), ("checkpoint", "c"))
        ]
        assert explanations.get(s, job.id) == made[1]
