import time

import pytest

from core.records import Device
from store import jobs, steps
from tests.store.makers import claim, new_job, new_step, new_trial
from workers.heart import Heart

LEASE = 0.3


@pytest.fixture
def step(database):
    """A held step of a running job."""
    with database.transaction() as s:
        job = new_job(s)
        new_trial(s, job.id)
        return claim(s, lease_seconds=LEASE)


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lease(database, step):
    with database.reading() as s:
        return steps.get(s, step.id).lease_until


def test_a_lease_is_prolonged_while_the_work_lasts_and_no_longer(database, step):
    with Heart(database, step, LEASE) as heart:
        until(lambda: lease(database, step) > step.lease_until)
        second = lease(database, step)
        until(lambda: lease(database, step) > second)
        assert not heart.cancelled
    last = lease(database, step)
    time.sleep(2 * LEASE / 3)
    assert lease(database, step) == last
    assert not heart._thread.is_alive()


def test_a_cancelled_job_stops_the_work(database, step):
    with Heart(database, step, LEASE) as heart:
        assert not heart.cancelled
        with database.transaction() as s:
            jobs.cancel(s, step.job_id)
        until(lambda: heart.cancelled)


def test_work_that_is_anothers_by_now_stops(database, step):
    with Heart(database, step, 60 * LEASE) as heart:
        with database.transaction() as s:
            steps.release(s, step.owner)
            again = claim(s, owner="another")
        until(lambda: heart.cancelled)
    with database.reading() as s:
        # A late beat prolongs nothing of the new holder's.
        assert steps.get(s, step.id) == again


def test_a_long_lease_still_learns_of_the_end_within_seconds(database, step):
    with Heart(database, step, 3600) as heart, database.transaction() as s:
        jobs.cancel(s, step.job_id)
    with Heart(database, step, 3600) as heart:
        until(lambda: heart.cancelled, seconds=6)


def test_a_beat_that_failed_is_not_the_last(database, step, monkeypatch):
    beat, beats = steps.heartbeat, []

    def fail_first(*arguments):
        beats.append(1)
        if len(beats) == 1:
            raise RuntimeError("the database went away")
        return beat(*arguments)

    monkeypatch.setattr(steps, "heartbeat", fail_first)
    with Heart(database, step, LEASE) as heart:
        until(lambda: lease(database, step) > step.lease_until)
        assert not heart.cancelled


def test_steps_without_a_job_have_a_heart_too(database):
    with database.transaction() as s:
        new_step(s)
        step = claim(s, Device.CPU, lease_seconds=LEASE)
    with Heart(database, step, LEASE):
        until(lambda: lease(database, step) > step.lease_until)
