import pytest

from core.errors import ConflictError, NotFoundError
from core.records import Device
from core.states import StepState, TrialState
from store import exports, jobs, steps, trials
from tests.store.makers import at_once, claim, new_job, new_trial, score


def scored(s, job_id, device=Device.CPU):
    trial = new_trial(s, job_id, device=device)
    trials.move(s, trial.id, TrialState.RUNNING)
    trials.record(s, trial.id, scored_items=50, scores=[score(0.5)], macro=0.5, seconds_added=1)
    return trials.move(s, trial.id, TrialState.SCORED)


def test_an_export_runs_on_the_kind_of_device_that_scored_although_the_job_has_ended(database):
    with database.transaction() as s:
        job = new_job(s)
        trial = scored(s, job.id, Device.CUDA)
        jobs.cancel(s, job.id)
        asked = exports.ask(s, trial.id, 4096)
        assert (asked.job_id, asked.trial_id, asked.device) == (None, trial.id, Device.CUDA)
        assert asked.payload == {"asked": True, "max_shard_bytes": 4096}
        assert claim(s, Device.CUDA).id == asked.id


def test_asking_at_once_is_one_export_and_asking_after_it_ended_another(database):
    with database.transaction() as s:
        trial = scored(s, new_job(s).id)

    def ask(_number):
        with database.transaction() as s:
            return exports.ask(s, trial.id, 4096).id

    (first,) = set(at_once(ask, 8))
    with database.transaction() as s:
        step = claim(s, Device.CPU)
        assert step.id == first
        assert steps.finish(s, step.id, step.fence).state is StepState.DONE
        assert exports.ask(s, trial.id, 4096).id != first


def test_what_was_not_scored_is_not_exported(database):
    with database.transaction() as s:
        trial = new_trial(s, new_job(s).id)
        with pytest.raises(ConflictError, match="queued"):
            exports.ask(s, trial.id, 4096)
        with pytest.raises(NotFoundError):
            exports.ask(s, "trial_x", 4096)
