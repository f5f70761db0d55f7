from __future__ import annotations

import pytest
from sqlalchemy import text

from core.errors import LeaseLostError
from core.records import Device, StepKind
from core.states import JobState, StepState
from store import events, jobs, steps
from tests.store.makers import age, at_once, claim, new_job, new_step, new_trial, put, rung


@pytest.fixture
def job(database):
    with database.transaction() as s:
        return new_job(s)


def _held(s, job, owner="worker", kind=StepKind.RUN_TRIAL):
    """A step that `owner` claimed just now."""
    step = new_step(s, kind, job_id=job.id if job else None)
    put(s, "steps", step.id, priority=1000)
    claimed = claim(s, owner=owner)
    assert claimed.id == step.id
    return claimed


def _expired(s, job, restarts=0):
    step = _held(s, job)
    put(s, "steps", step.id, infra_restarts=restarts)
    age(s, step.id, "lease_until", 61)
    return step


def test_a_step_whose_lease_ran_out_is_queued_again_and_rung(database, job):
    with database.transaction() as s:
        step = _expired(s, job)
    with database.transaction() as s:
        assert steps.expire(s, max_infra_restarts=5) == []
        assert rung(s) == [("cpu", "run_trial")]
        found = steps.get(s, step.id)
        assert (found.state, found.infra_restarts, found.attempts) == (StepState.QUEUED, 1, 0)
        assert (found.owner, found.lease_until, found.not_before) == (None, None, None)
        assert claim(s).id == step.id


def test_a_lease_that_has_not_run_out_is_left_alone(database, job):
    with database.transaction() as s:
        step = _held(s, job)
    with database.transaction() as s:
        assert steps.expire(s, max_infra_restarts=0) == []
        assert steps.heartbeat(s, step.id, step.fence, 60) == "held"


def test_the_trial_of_a_lost_step_is_left_alone(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        step = claim(s, Device.CPU)
        age(s, step.id, "lease_until", 61)
        before = events.after(s, job.id, 0, 99)
    with database.transaction() as s:
        steps.expire(s, max_infra_restarts=5)
        assert events.after(s, job.id, 0, 99) == before
        assert steps.get(s, step.id).trial_id == trial.id


def test_restarts_after_the_first_pause_longer_each_time(database, job):
    with database.transaction() as s:
        lost = [_expired(s, job, restarts) for restarts in range(5)]
    with database.transaction() as s:
        now = s.execute(text("SELECT now()")).scalar_one()
        steps.expire(s, max_infra_restarts=9)
        assert [id for _, _, id in s.bells] == [lost[0].id]
        moments = [steps.get(s, step.id).not_before for step in lost]
    assert [moment and (moment - now).total_seconds() for moment in moments] == [None, 1, 2, 4, 8]


def test_a_step_whose_workers_die_too_often_fails_and_is_returned(database, job):
    with database.transaction() as s:
        last_chance, too_often = _expired(s, job, 4), _expired(s, job, 5)
    with database.transaction() as s:
        (failed,) = steps.expire(s, max_infra_restarts=5)
        assert (failed.id, failed.state, failed.infra_restarts) == (too_often.id, StepState.FAILED, 6)
        assert failed.failure.code == "lease_lost"
        assert failed.finished_at is not None
        assert steps.get(s, last_chance.id).state is StepState.QUEUED
        assert steps.expire(s, max_infra_restarts=5) == []


def test_a_step_that_kills_its_runner_each_time_fails_in_the_end_too(database, job):
    """Released steps go back at once, without a cap; the reconciler holds the cap over them."""
    with database.transaction() as s:
        step = _held(s, job)
        put(s, "steps", step.id, infra_restarts=5)
        assert steps.release(s, "worker") == 1
    with database.transaction() as s:
        assert [failed.id for failed in steps.expire(s, max_infra_restarts=5)] == [step.id]


def test_expired_steps_of_an_ended_job_are_cancelled(database):
    with database.transaction() as s:
        job = new_job(s)
        running, queued = _expired(s, job, 9), new_step(s, job_id=job.id)
        explain = new_step(s, StepKind.EXPLAIN, Device.NONE, job_id=job.id)
        put(s, "jobs", job.id, state=JobState.CANCELLED.value)
    with database.transaction() as s:
        assert steps.expire(s, max_infra_restarts=5) == []
        assert [steps.get(s, step.id).state for step in (running, queued)] == [StepState.CANCELLED] * 2
        assert steps.get(s, explain.id).state is StepState.QUEUED
        assert s.bells == {}


def test_a_job_that_is_being_written_is_left_for_the_next_pass(database, job):
    with database.transaction() as s:
        step = _expired(s, job)
        alone = _expired(s, None)
    with database.transaction() as writing, database.transaction() as reconciler:
        steps.guard(writing, step.id, step.fence)
        steps.expire(reconciler, max_infra_restarts=5)
        assert steps.get(reconciler, step.id).state is StepState.RUNNING
        assert steps.get(reconciler, alone.id).state is StepState.QUEUED
    with database.transaction() as s:
        steps.expire(s, max_infra_restarts=5)
        assert steps.get(s, step.id).state is StepState.QUEUED


def test_a_step_whose_heart_beats_at_the_last_moment_stays_with_its_holder(database, job):
    with database.transaction() as s:
        late = [_expired(s, job), _expired(s, None)]
    with database.transaction() as beating, database.transaction() as reconciler:
        reconciler.execute(text("SET LOCAL lock_timeout = '1s'"))  # it must not wait either
        assert [steps.heartbeat(beating, step.id, step.fence, 60) for step in late] == ["held"] * 2
        steps.expire(reconciler, max_infra_restarts=5)
    with database.transaction() as s:
        assert [steps.heartbeat(s, step.id, step.fence, 60) for step in late] == ["held"] * 2


def test_two_reconcilers_at_once_count_a_restart_once(database, job):
    with database.transaction() as s:
        ids = [_expired(s, job).id for _ in range(5)] + [_expired(s, None).id]

    def pass_once(_: int) -> None:
        with database.transaction() as s:
            steps.expire(s, max_infra_restarts=5)

    at_once(pass_once, 4)
    pass_once(0)
    with database.reading() as s:
        assert [steps.get(s, id).infra_restarts for id in ids] == [1] * 6


def test_released_steps_go_back_at_once_and_their_old_holder_is_shut_out(database, job):
    with database.transaction() as s:
        mine, also_mine, other = _held(s, job, "a"), _held(s, None, "a"), _held(s, job, "b")
    with database.transaction() as s:
        assert steps.release(s, "a") == 2
        assert len(s.bells) == 2
    with database.transaction() as s:
        for step in (mine, also_mine):
            found = steps.get(s, step.id)
            assert (found.state, found.infra_restarts, found.not_before) == (StepState.QUEUED, 1, None)
            with pytest.raises(LeaseLostError):
                steps.guard(s, step.id, step.fence)
        assert steps.get(s, other.id).state is StepState.RUNNING
        assert steps.release(s, "nobody") == 0


def test_those_who_hold_a_step_are_listed_once(database, job):
    with database.transaction() as s:
        _held(s, job, "b")
        _held(s, job, "a")
        done = _held(s, job, "c")
        _held(s, job, "a")
        steps.finish(s, done.id, done.fence)
        assert steps.owners(s) == ["a", "b"]


def test_a_job_under_way_without_an_open_step_is_idle(database):
    with database.transaction() as s:
        idle, queued, running = new_job(s), new_job(s), new_job(s)
        new_job(s, JobState.PAUSED)
        jobs.cancel(s, new_job(s).id)
        new_step(s, job_id=queued.id)
        _held(s, running)
        assert steps.idle_jobs(s) == [idle.id]


def test_what_waits_is_rung_again_once_per_period(database, job):
    with database.transaction() as s:
        first, second = new_step(s, job_id=job.id), new_step(s, device=Device.CUDA, job_id=job.id)
    with database.transaction() as s:
        assert steps.overdue(s, 30) == []
        age(s, first.id, "rung_at", 31)
        assert [step.id for step in steps.overdue(s, 30)] == [first.id]
        assert list(s.bells) == [("cpu", "run_trial", first.id)]
    with database.transaction() as s:
        assert steps.overdue(s, 30) == []
        age(s, second.id, "rung_at", 31)
        assert [step.id for step in steps.overdue(s, 30)] == [second.id]


def test_what_cannot_run_is_not_rung(database, job):
    with database.transaction() as s:
        paused = new_job(s, JobState.PAUSED)
        later = job.created_at.replace(year=2999)
        new_step(s, job_id=paused.id)
        new_step(s, job_id=job.id, not_before=later)
        _held(s, job)
        assert steps.overdue(s, -1) == []


def test_a_step_whose_pause_is_over_is_rung_at_the_next_pass(database, job):
    with database.transaction() as s:
        step = new_step(s, job_id=job.id, not_before=job.created_at.replace(year=2999))
        put(s, "steps", step.id, not_before=job.created_at)
    with database.transaction() as s:
        assert [found.id for found in steps.overdue(s, 30)] == [step.id]


def test_a_flood_is_rung_in_parts_oldest_first(database, job):
    with database.transaction() as s:
        made = [new_step(s, job_id=job.id).id for _ in range(120)]
    with database.transaction() as s:
        assert sorted(step.id for step in steps.overdue(s, -1)) == sorted(made[:100])


def test_the_figures_of_the_queue(database, job):
    with database.transaction() as s:
        assert steps.counts(s) == {
            "depth": {device.value: {"queued": 0, "running": 0} for device in Device},
            "oldest_queued_seconds": 0,
            "oldest_expired_lease_seconds": 0,
        }
        lost = _held(s, job)
        waiting, _ = new_step(s, job_id=job.id), new_step(s, device=Device.CUDA, job_id=job.id)
        done = _held(s, job)
        steps.finish(s, done.id, done.fence)
        age(s, waiting.id, "created_at", 100)
        age(s, lost.id, "lease_until", 60 + 7)
    with database.reading() as s:
        found = steps.counts(s)
    assert found["depth"] == {
        "none": {"queued": 0, "running": 0},
        "cpu": {"queued": 1, "running": 1},
        "cuda": {"queued": 1, "running": 0},
    }
    assert 100 <= found["oldest_queued_seconds"] < 130
    assert 6 < found["oldest_expired_lease_seconds"] < 37
