import subprocess
import sys
import threading
import time

import pytest

from core.errors import LeaseLostError
from core.outcomes import Outcomes
from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState, TrialState
from store import events, jobs, outcomes, steps, trials
from store.session import Database
from tests.store.makers import age, claim, new_job, new_step, new_trial
from workers import reconciler
from workers.lifetime import process_owner
from workers.reconciler import Reconciler, reconcile


class Recorder:
    """A bell that only listens."""

    def __init__(self):
        self.rung = []

    def ring(self, queue, kind, id):
        self.rung.append((queue, kind, id))

    def close(self):
        pass


@pytest.fixture
def database(database_url):
    opened = Database(database_url)
    opened.bell = Recorder()
    yield opened
    opened.dispose()


@pytest.fixture
def settings(database_url):
    return Settings(database_url=database_url, broker_url=None, max_infra_restarts=2, ring_seconds=30)


@pytest.fixture
def running(database):
    """A job whose one trial is held by a worker, and the claimed step."""
    with database.transaction() as s:
        job = new_job(s)
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.RUNNING)
        step = claim(s)
    return job, trial, step


def now(database, step):
    with database.reading() as s:
        return steps.get(s, step.id)


def expire(database, step):
    with database.transaction() as s:
        age(s, step.id, "lease_until", 3600)


def test_a_step_whose_lease_ran_out_is_queued_again_and_its_holder_may_write_no_more(database, settings, running):
    job, trial, step = running
    expire(database, step)
    reconcile(database, settings)
    with database.transaction() as s:
        taken = claim(s, owner="another")
    assert (taken.id, taken.fence, taken.infra_restarts) == (step.id, step.fence + 1, 1)
    written = Outcomes.of([(0, 1, 0.5)])
    for late in (
        lambda s: steps.guard(s, step.id, step.fence),
        lambda s: steps.finish(s, step.id, step.fence),
        lambda s: (
            outcomes.commit(s, recipe_digest="r", fingerprint="f", task="t", documents=9, outcomes=written),
            steps.finish(s, step.id, step.fence),
        ),
    ):
        with pytest.raises(LeaseLostError), database.transaction() as s:
            late(s)
    with database.reading() as s:
        assert outcomes.load(s, "r", "f") == Outcomes.empty()
        assert trials.get(s, trial.id).state is TrialState.RUNNING
        assert jobs.get(s, job.id).state is JobState.RUNNING
    assert now(database, step).owner == "another"


def test_a_step_that_is_prolonged_is_left_to_its_holder(database, settings, running):
    _, _, step = running
    reconcile(database, settings)
    assert now(database, step) == step


def test_a_trial_whose_workers_keep_dying_fails_and_its_job_goes_on(database, settings, running):
    job, trial, step = running
    for restarts in (1, 2, 3):
        expire(database, step)
        reconcile(database, settings)
        with database.transaction() as s:
            age(s, step.id, "not_before", 3600)
            assert (claim(s, Device.CPU) is None) is (restarts == 3)
    with database.reading() as s:
        ended = trials.get(s, trial.id)
        assert (ended.state, ended.failure.code) == (TrialState.FAILED, "lease_lost")
        assert jobs.get(s, job.id).state is JobState.RUNNING
        (advance,) = steps.of_job(s, job.id, kinds=(StepKind.ADVANCE,), states=(StepState.QUEUED,))
        history = [event.payload.get("state") for event in events.after(s, job.id, 0, 100)]
    assert now(database, step).state is StepState.FAILED
    assert ("control", "advance", advance.id) in database.bell.rung
    assert history.count("failed") == 1
    # The next pass finds nothing left to do.
    reconcile(database, settings)
    with database.reading() as s:
        assert len(events.after(s, job.id, 0, 100)) == len(history)


@pytest.mark.parametrize("kind", [StepKind.ADVANCE, StepKind.INSPECT_TASK])
def test_a_job_whose_own_step_keeps_killing_workers_fails(database, settings, kind):
    with database.transaction() as s:
        job = new_job(s)
        new_step(s, kind, Device.CPU, job_id=job.id)
        step = claim(s)
    for _ in range(3):
        expire(database, step)
        reconcile(database, settings)
        with database.transaction() as s:
            age(s, step.id, "not_before", 3600)
            claim(s)
    with database.reading() as s:
        ended = jobs.get(s, job.id)
    assert (ended.state, ended.failure.code) == (JobState.FAILED, "lease_lost")


def test_what_a_dead_process_of_this_host_held_is_released_at_once(database, settings, running):
    _, _, step = running
    script = "from workers.lifetime import process_owner; print(process_owner())"
    dead = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    with database.transaction() as s:
        steps.release(s, step.owner)
        mine = claim(s, owner=dead, lease_seconds=86400)
        other = new_step(s)
        alive = claim(s, owner=process_owner(), lease_seconds=86400)
        far = new_step(s)
        distant = claim(s, owner="elsewhere:1:2", lease_seconds=86400)
    assert (mine.id, alive.id, distant.id) == (step.id, other.id, far.id)
    reconcile(database, settings)
    assert now(database, mine).state is StepState.QUEUED
    assert now(database, alive).state is now(database, distant).state is StepState.RUNNING


def test_a_job_that_nothing_would_wake_is_woken_once(database, settings):
    with database.transaction() as s:
        idle = new_job(s)
        paused, ended = new_job(s, JobState.PAUSED), new_job(s, JobState.SUCCEEDED)
    for _ in range(2):
        reconcile(database, settings)
        with database.reading() as s:
            open_steps = {
                job.id: [x.kind for x in steps.of_job(s, job.id, states=(StepState.QUEUED,))]
                for job in (idle, paused, ended)
            }
        assert open_steps == {idle.id: [StepKind.ADVANCE], paused.id: [], ended.id: []}


def test_a_step_nobody_rang_for_is_rung_again_after_a_while(database, settings):
    with database.transaction() as s:
        step = new_step(s)
    bell = database.bell
    bell.rung.clear()
    reconcile(database, settings)
    assert bell.rung == []
    with database.transaction() as s:
        age(s, step.id, "rung_at", 31)
    reconcile(database, settings)
    assert bell.rung == [("cpu", "run_trial", step.id)]
    # It was rung for just now.
    reconcile(database, settings)
    assert len(bell.rung) == 1


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_two_reconcilers_one_leads_and_the_other_takes_over(database, settings, monkeypatch):
    leading = []
    monkeypatch.setattr(reconciler, "reconcile", lambda *_: leading.append(threading.current_thread()))
    two = [Reconciler(settings.model_copy(update={"reconcile_seconds": 0.02})) for _ in range(2)]
    for one in two:
        one.start()
    until(lambda: len(leading) > 20)
    assert len(set(leading)) == 1
    first = next(one for one in two if one._thread is leading[0])
    first.stop()
    first._thread.join()
    until(lambda: leading[-1] is not leading[0])
    (second,) = set(two) - {first}
    second.stop()
    second._thread.join()
    assert set(leading) == {first._thread, second._thread}


def test_a_pass_that_failed_is_not_the_last(database, settings, monkeypatch):
    passes = []

    def fail_first(*_):
        passes.append(1)
        if len(passes) == 1:
            raise RuntimeError("the database went away")

    monkeypatch.setattr(reconciler, "reconcile", fail_first)
    monkeypatch.setattr(reconciler, "_running", [])
    reconciler.start_reconciler(settings.model_copy(update={"reconcile_seconds": 0.02}))
    until(lambda: len(passes) > 3)
    (one,) = reconciler._running
    reconciler.stop_reconciler()
    one._thread.join(10)
    assert not one._thread.is_alive()
