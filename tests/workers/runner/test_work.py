import threading
from types import SimpleNamespace

import pytest
import torch

from core.errors import NonFiniteWeightsError
from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState, TrialState
from store import jobs, steps, trials
from tests.store.makers import new_job, new_step, new_trial, score
from workers.runner import work
from workers.runner.work import VERBS, run_next


@pytest.fixture
def bench(database):
    """What a runner's workbench shows to the loop."""
    return SimpleNamespace(
        database=database,
        owner="runner",
        devices=(Device.CPU,),
        prefer_job=None,
        settings=Settings(database_url=database.url, broker_url=None),
    )


@pytest.fixture
def trial(database):
    with database.transaction() as s:
        return new_trial(s, new_job(s).id)


@pytest.fixture
def verb(monkeypatch):
    """Replaces what a runner does with trials."""
    monkeypatch.setattr(work, "WAIT_SECONDS", 0.0)
    return lambda action: monkeypatch.setitem(VERBS, StepKind.RUN_TRIAL, action)


def finish(bench, step, heart):
    with bench.database.transaction() as s:
        steps.finish(s, step.id, step.fence)


def read(bench, of, id):
    with bench.database.reading() as s:
        return of.get(s, id)


def test_with_nothing_to_do_nothing_is_done(bench):
    assert run_next(bench) == {"ran": False}


def test_a_step_is_run_under_a_heartbeat_and_its_job_preferred_from_then_on(bench, trial, verb):
    seen = []

    def run(bench, step, heart):
        seen.append((step.trial_id, heart._thread.is_alive(), step.owner))
        finish(bench, step, heart)

    verb(run)
    answer = run_next(bench)
    assert answer["ran"] and answer["kind"] == "run_trial"
    assert seen == [(trial.id, True, "runner")]
    assert bench.prefer_job == trial.job_id
    assert run_next(bench) == {"ran": False}


def test_steps_for_other_devices_and_of_other_kinds_are_left_alone(bench, database):
    with database.transaction() as s:
        new_step(s, device=Device.CUDA)
        new_step(s, StepKind.STATISTICS)
        new_step(s, StepKind.ADVANCE, Device.NONE)
    assert run_next(bench) == {"ran": False}


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 2 GiB\nmore", ""])
def test_a_device_without_room_fails_the_trial_and_says_what_to_change(bench, trial, verb, message):
    def run(*_):
        raise torch.OutOfMemoryError(message)

    verb(run)
    assert run_next(bench)["ran"]
    failed = read(bench, trials, trial.id)
    assert (failed.state, failed.failure.code) == (TrialState.FAILED, "out_of_memory")
    assert "HUARIZO_BATCH_TOKENS" in failed.failure.message and "more" not in failed.failure.message
    assert read(bench, jobs, trial.job_id).state is JobState.RUNNING


def test_a_failed_candidate_leaves_the_runner_ready_for_the_next(bench, trial, verb, database):
    with database.transaction() as s:
        second = new_trial(s, trial.job_id)

    def run(bench, step, heart):
        if step.trial_id == trial.id:
            raise NonFiniteWeightsError("tensor 'x' holds NaN")
        finish(bench, step, heart)

    verb(run)
    ended = [run_next(bench)["step"] for _ in range(2)]
    assert [read(bench, steps, id).state for id in ended] == [StepState.FAILED, StepState.DONE]
    assert read(bench, trials, second.id).state is TrialState.QUEUED


@pytest.mark.parametrize("word", ["raised", "stopped"])
def test_a_runner_waits_for_the_word_on_the_candidate_it_holds(bench, trial, verb, monkeypatch, word):
    def run(bench, step, heart):
        with bench.database.transaction() as s:
            trials.move(s, trial.id, TrialState.RUNNING)
            trials.record(s, trial.id, scored_items=50, scores=[score(0.5)], macro=0.5, seconds_added=0.1)
            trials.move(s, trial.id, TrialState.WAITING)
            steps.finish(s, step.id, step.fence)

    def tell():
        with bench.database.transaction() as s:
            if word == "raised":
                trials.raise_target(s, trial.id, 200, 1, Device.CPU)
            else:
                trials.move(s, trial.id, TrialState.STOPPED)

    verb(run)
    monkeypatch.setattr(work, "WAIT_SECONDS", 60.0)
    proposer = threading.Timer(0.3, tell)
    proposer.start()
    assert run_next(bench)["ran"]
    # It came back, long before its patience ended, because the word was there.
    proposer.join()
    told = read(bench, trials, trial.id)
    assert told.target_items == 200 if word == "raised" else told.state is TrialState.STOPPED
    monkeypatch.setattr(work, "WAIT_SECONDS", 0.0)
    verb(finish)
    assert run_next(bench)["ran"] is (word == "raised")


def test_without_a_word_a_runner_goes_on_after_a_moment(bench, trial, verb, monkeypatch):
    verb(finish)
    monkeypatch.setattr(work, "WAIT_SECONDS", 0.05)
    assert run_next(bench)["ran"]
