from __future__ import annotations

import time
from collections import Counter

import pytest
from sqlalchemy import text

from core.errors import ConflictError, LeaseLostError, NotFoundError
from core.outcomes import Outcomes
from core.records import Device, StepKind
from core.states import STEP_MOVES, JobState, StepState, TrialState, sources_of
from store import jobs, leases, outcomes, rows, steps, tables, trials
from tests.store.makers import FAILURE, age, at_once, claim, new_job, new_step, new_trial, put, rung


@pytest.fixture
def job(database):
    with database.transaction() as s:
        return new_job(s)


def _claims(s, count):
    return [claim(s).id for _ in range(count)]


def test_a_claim_takes_the_lease_by_the_clock_of_the_database(database, job):
    with database.transaction() as s:
        new_step(s, job_id=job.id)
    with database.transaction() as s:
        step = claim(s, owner="w1", lease_seconds=30)
        now = s.execute(text("SELECT now()")).scalar_one()
    assert (step.state, step.owner, step.fence, step.attempts) == (StepState.RUNNING, "w1", 1, 0)
    assert (step.lease_until - now).total_seconds() == 30


def test_there_is_nothing_to_claim_on_an_empty_queue(database):
    with database.transaction() as s:
        assert claim(s) is None
        assert steps.claim(s, owner="w", devices=(), lease_seconds=1) is None


def test_steps_that_ran_before_come_first_then_priority_then_age(database, job):
    with database.transaction() as s:
        old, young, promoted, retried, restarted = (new_step(s, job_id=job.id) for _ in range(5))
        put(s, "steps", promoted.id, priority=100)
        put(s, "steps", retried.id, attempts=1)
        put(s, "steps", restarted.id, infra_restarts=1)
        assert _claims(s, 5) == [retried.id, restarted.id, promoted.id, old.id, young.id]


def test_jobs_take_turns_and_the_job_at_hand_only_breaks_ties(database):
    with database.transaction() as s:
        big, small = new_job(s), new_job(s)
        first, second, third = (new_step(s, job_id=big.id) for _ in range(3))
        lonely = new_step(s, job_id=small.id)
        assert _claims(s, 2) == [first.id, lonely.id]
        other = new_step(s, job_id=small.id)
        assert claim(s, prefer_job=small.id).id == other.id
        assert _claims(s, 2) == [second.id, third.id]


def test_a_claim_takes_only_its_devices_and_kinds(database, job):
    with database.transaction() as s:
        cuda = new_step(s, device=Device.CUDA, job_id=job.id)
        export = new_step(s, StepKind.EXPORT, job_id=job.id)
        assert claim(s, Device.NONE) is None
        assert claim(s, kinds=(StepKind.CONFIRM,)) is None
        assert claim(s, kinds=(StepKind.EXPORT, StepKind.CONFIRM)).id == export.id
        assert claim(s, Device.CPU, Device.CUDA).id == cuda.id


def test_a_step_waits_until_its_time_has_come(database, job):
    with database.transaction() as s:
        later = s.execute(text("SELECT now() + interval '1 hour'")).scalar_one()
        step = new_step(s, job_id=job.id, not_before=later)
        assert s.bells == {}
        assert claim(s) is None
        age(s, step.id, "not_before", 3601)
        assert claim(s).id == step.id


@pytest.mark.parametrize("state", list(JobState))
def test_steps_run_while_their_job_is_under_way_and_explanations_always(database, state):
    with database.transaction() as s:
        job = new_job(s, state)
        step = new_step(s, job_id=job.id)
        explain = new_step(s, StepKind.EXPLAIN, Device.NONE, job_id=job.id)
        assert claim(s, Device.NONE).id == explain.id
        found = claim(s, Device.CPU)
        if state.final or state is JobState.PAUSED:
            assert found is None
        else:
            assert found.id == step.id


def test_a_step_without_a_job_runs(database):
    with database.transaction() as s:
        step = new_step(s, StepKind.INSPECT_MODEL, Device.NONE, payload={"model_id": "m"})
        assert claim(s).id == step.id


def test_every_pair_of_step_states_agrees_with_the_table(database, job):
    """A row moves under the guard of `sources_of`, or not at all."""
    with database.transaction() as s:
        step = new_step(s, job_id=job.id)
        put(s, "steps", step.id, owner="w", lease_until=job.created_at)
        for source in StepState:
            for target in StepState:
                put(s, "steps", step.id, state=source.value)
                if target in STEP_MOVES[source]:
                    assert rows.move(s, tables.steps, type(step), step.id, target).state is target
                else:
                    with pytest.raises(ConflictError):
                        rows.move(s, tables.steps, type(step), step.id, target)


@pytest.mark.parametrize("state", list(StepState))
def test_each_act_on_a_step_works_from_the_states_that_lead_to_its_end_and_no_other(database, job, state):
    acts = {
        StepState.DONE: lambda s, id: steps.finish(s, id, 0),
        StepState.FAILED: lambda s, id: steps.fail(s, id, 0, FAILURE, retry=False, max_attempts=1),
        StepState.QUEUED: lambda s, id: steps.fail(s, id, 0, FAILURE, retry=True, max_attempts=9),
    }
    for target, act in acts.items():
        with database.transaction() as s:
            step = new_step(s, job_id=job.id)
            put(s, "steps", step.id, state=state.value, owner="w", lease_until=job.created_at)
            if state is StepState.RUNNING:
                assert state.value in sources_of(target)
                assert act(s, step.id).state is target
            else:
                with pytest.raises(LeaseLostError):
                    act(s, step.id)


def test_two_hundred_steps_claimed_by_eight_threads_are_each_claimed_once(database):
    with database.transaction() as s:
        wanted = {new_step(s, job_id=new_job(s).id).id for _ in range(4)}
        for job_id in [step_job for (step_job,) in s.execute(text("SELECT id FROM jobs"))]:
            wanted |= {new_step(s, job_id=job_id).id for _ in range(49)}

    def work(number: int) -> list[str]:
        mine: list[str] = []
        while True:
            with database.transaction() as s:
                step = claim(s, owner=f"w{number}")
            if step is None:
                return mine
            mine.append(step.id)

    claimed = Counter(id for mine in at_once(work, 8) for id in mine)
    assert len(wanted) == 200
    assert claimed == Counter(wanted)


def test_one_advance_of_a_job_runs_at_a_time_and_the_next_is_rung_when_it_ends(database, job):
    with database.transaction() as s:
        steps.ensure_advance(s, job.id)
        first = claim(s)
        steps.ensure_advance(s, job.id)
    with database.transaction() as s:
        assert claim(s) is None
        steps.finish(s, first.id, first.fence)
        assert rung(s) == [("control", "advance")]
        assert claim(s).kind is StepKind.ADVANCE


def test_an_advance_that_must_wait_hides_no_other_step(database, job):
    with database.transaction() as s:
        steps.ensure_advance(s, job.id)
        claim(s)
        steps.ensure_advance(s, job.id)
        other = new_job(s, JobState.QUEUED)
        steps.ensure_advance(s, other.id)
        found = claim(s)
        assert (found.kind, found.job_id) == (StepKind.ADVANCE, other.id)
        assert steps.overdue(s, -1) == []


def test_of_two_advance_steps_claimed_at_the_same_moment_one_runs(database, job):
    for _ in range(5):
        with database.transaction() as s:
            new_step(s, StepKind.ADVANCE, Device.NONE, job_id=job.id)
            new_step(s, StepKind.ADVANCE, Device.NONE, job_id=job.id)

        def take(number: int):
            with database.transaction() as s:
                step = claim(s, owner=f"w{number}")
                s.execute(text("SELECT pg_sleep(0.05)"))  # hold the claim open while the other one tries
                return step

        found = [step for step in at_once(take, 2) if step is not None]
        assert len(found) == 1
        with database.transaction() as s:
            for step in steps.of_job(s, job.id):
                put(s, "steps", step.id, state="done")


def test_an_advance_step_is_queued_once_however_often_it_is_asked_for(database, job):
    def ask(_: int) -> None:
        with database.transaction() as s:
            steps.ensure_advance(s, job.id)

    at_once(ask, 8)
    with database.reading() as s:
        assert len(steps.of_job(s, job.id, states=(StepState.QUEUED,))) == 1


def test_an_advance_step_that_is_being_claimed_may_not_see_this_so_another_is_queued(database, job):
    with database.transaction() as s:
        steps.ensure_advance(s, job.id)
    with database.transaction() as claiming, database.transaction() as writing:
        claimed = claim(claiming)
        steps.ensure_advance(writing, job.id)
    with database.reading() as s:
        assert {step.id: step.state for step in steps.of_job(s, job.id)}[claimed.id] is StepState.RUNNING
        assert len(steps.of_job(s, job.id, states=(StepState.QUEUED,))) == 1


def test_an_advance_step_that_is_counted_on_cannot_start_before_this_is_written(database, job):
    with database.transaction() as s:
        steps.ensure_advance(s, job.id)
    with database.transaction() as writing, database.transaction() as claiming:
        steps.ensure_advance(writing, job.id)
        assert claim(claiming) is None
    with database.transaction() as s:
        assert claim(s) is not None


def test_a_heartbeat_prolongs_the_lease_only_for_the_holder(database, job):
    with database.transaction() as s:
        new_step(s, job_id=job.id)
        step = claim(s, lease_seconds=1)
    with database.transaction() as s:
        assert steps.heartbeat(s, step.id, step.fence, 100) == "held"
        assert (steps.get(s, step.id).lease_until - step.lease_until).total_seconds() > 90
        assert steps.heartbeat(s, step.id, step.fence + 1, 100) == "lost"
        assert steps.heartbeat(s, "step_0", 1, 100) == "lost"
        steps.finish(s, step.id, step.fence)
        assert steps.heartbeat(s, step.id, step.fence, 100) == "lost"


def test_a_holder_whose_job_ended_while_its_heart_beat_learns_it_at_the_next_beat(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        step = claim(s, Device.CPU)
    with database.transaction() as beating, database.transaction() as cancelling:
        assert steps.heartbeat(beating, step.id, step.fence, 60) == "held"
        jobs.cancel(cancelling, job.id)  # does not wait for the beat to be written
    with database.transaction() as s:
        assert steps.heartbeat(s, step.id, step.fence, 60) == "cancelled"
        with pytest.raises(LeaseLostError):
            steps.guard(s, step.id, step.fence)
        assert trials.get(s, trial.id).state == "cancelled"


def test_a_stale_holder_can_neither_finish_nor_fail_nor_record(database, job):
    with database.transaction() as s:
        trial = new_trial(s, job.id)
        stale = claim(s, owner="frozen")
        age(s, stale.id, "lease_until", 61)
    with database.transaction() as s:
        assert steps.expire(s, max_infra_restarts=5) == []
    acts = (
        lambda s, fence: steps.finish(s, stale.id, fence),
        lambda s, fence: steps.fail(s, stale.id, fence, FAILURE, retry=True, max_attempts=2),
        lambda s, fence: steps.guard(s, stale.id, fence),
    )
    for act in acts:  # before anyone else has it
        with database.transaction() as s, pytest.raises(LeaseLostError):
            act(s, stale.fence)
    with database.transaction() as s:
        fresh = claim(s, owner="fresh")
        assert (fresh.id, fresh.fence, fresh.infra_restarts) == (stale.id, stale.fence + 1, 1)
    for act in acts:  # and after
        with database.transaction() as s, pytest.raises(LeaseLostError):
            act(s, stale.fence)
    with database.transaction() as s:
        steps.guard(s, fresh.id, fresh.fence)
        trials.move(s, trial.id, TrialState.RUNNING)
        assert steps.finish(s, fresh.id, fresh.fence, {"items": 50}).result == {"items": 50}


def test_nothing_that_follows_a_refused_guard_is_written(database, job):
    def write_late(fence: int) -> None:
        with database.transaction() as s:
            steps.guard(s, step.id, fence)
            one = Outcomes.of([(0, 1, 0.5)])
            outcomes.commit(s, recipe_digest="r", fingerprint="f", task="t", documents=9, outcomes=one)

    with database.transaction() as s:
        new_trial(s, job.id)
        step = claim(s, Device.CPU)
        put(s, "steps", step.id, fence=step.fence + 1)
    with pytest.raises(LeaseLostError, match="stop and discard"):
        write_late(step.fence)
    write_late(step.fence + 1)
    with database.reading() as s:
        assert len(outcomes.load(s, "r", "f")) == 1


def test_a_guarded_step_stays_with_its_holder_until_the_transaction_ends(database, job):
    with database.transaction() as s:
        new_trial(s, job.id)
        free = new_step(s, StepKind.INSPECT_MODEL, Device.NONE)
        bound, loose = claim(s, Device.CPU), claim(s, Device.NONE)
        assert loose.id == free.id
        for step in (bound, loose):
            age(s, step.id, "lease_until", 61)
    with database.transaction() as s:
        steps.guard(s, bound.id, bound.fence)
        steps.guard(s, loose.id, loose.fence)
        with database.transaction() as reconciler:
            steps.expire(reconciler, max_infra_restarts=5)
        assert steps.finish(s, bound.id, bound.fence).state is StepState.DONE
        assert steps.finish(s, loose.id, loose.fence).state is StepState.DONE


def test_an_unknown_step_is_not_found(database):
    with database.transaction() as s:
        for act in (steps.guard, steps.finish):
            with pytest.raises(NotFoundError):
                act(s, "step_0", 1)
        with pytest.raises(NotFoundError):
            steps.get(s, "step_0")


def test_a_failed_attempt_is_tried_again_after_a_pause_and_then_fails(database, job):
    with database.transaction() as s:
        new_trial(s, job.id)
        step = claim(s, Device.CPU)
        again = steps.fail(s, step.id, step.fence, FAILURE, retry=True, max_attempts=2)
        now = s.execute(text("SELECT now()")).scalar_one()
        assert (again.state, again.attempts, again.owner) == (StepState.QUEUED, 1, None)
        assert (again.not_before - now).total_seconds() == 1
        assert claim(s) is None
        age(s, step.id, "not_before", 2)
        step = claim(s)
        final = steps.fail(s, step.id, step.fence, FAILURE, retry=True, max_attempts=2)
    assert (final.state, final.attempts, final.failure) == (StepState.FAILED, 2, FAILURE)
    assert final.finished_at is not None


def test_what_cannot_succeed_is_not_tried_again(database, job):
    with database.transaction() as s:
        new_trial(s, job.id)
        step = claim(s, Device.CPU)
        assert steps.fail(s, step.id, step.fence, FAILURE, retry=False, max_attempts=9).state is StepState.FAILED


def test_pauses_double_up_to_a_minute(database, job):
    with database.transaction() as s:
        new_trial(s, job.id)
        now = s.execute(text("SELECT now()")).scalar_one()
        pauses = []
        for attempts in (0, 1, 2, 5, 6, 200):
            step = claim(s, Device.CPU)
            put(s, "steps", step.id, attempts=attempts)
            failed = steps.fail(s, step.id, step.fence, FAILURE, retry=True, max_attempts=999)
            pauses.append((failed.not_before - now).total_seconds())
            put(s, "steps", step.id, not_before=None)
    assert pauses == [1, 2, 4, 32, 60, 60]


def test_cancelling_a_job_does_not_wait_for_a_claim_that_waits_for_the_job(database, job):
    """The lock order: whoever holds a job's row skips its steps that others hold, so nobody waits in a circle."""

    def take(_: int) -> str:
        with database.transaction() as s:
            step = claim(s, Device.CPU)
            time.sleep(0.1)
            try:
                trials.move(s, step.trial_id, TrialState.RUNNING)
            except ConflictError:
                return "refused"
            return "running"

    def end(_: int) -> str:
        time.sleep(0.05)
        with database.transaction() as s:
            jobs.cancel(s, job.id)
            return "cancelled"

    with database.transaction() as s:
        new_trial(s, job.id)
    assert at_once(lambda n: (take, end)[n](n), 2) == ["refused", "cancelled"]  # a deadlock would end one with an error


def test_the_best_of_a_long_history_is_found_without_reading_the_history(database):
    with database.transaction() as s:
        job = new_job(s)
        s.execute(
            text(
                "INSERT INTO steps (id, job_id, kind, device, state) SELECT 'old_' || n, :job, 'run_trial', 'cpu', "
                "'done' FROM generate_series(1, 100000) AS n"
            ),
            {"job": job.id},
        )
        wanted = [new_step(s, job_id=job.id).id for _ in range(30)]
    with database.transaction() as s:
        s.execute(text("ANALYZE steps"))
        pages = s.execute(text("SELECT relpages FROM pg_class WHERE relname = 'steps'")).scalar_one()
        query = leases._best((Device.CPU,), None, job.id)
        text_of_it = str(query.compile(s.connection.engine, compile_kwargs={"literal_binds": True}))
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text_of_it}".replace("%", "%%")
        plan = s.connection.exec_driver_sql(explain).scalar_one()[0]["Plan"]
    assert pages > 1500
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 150, plan
    with database.transaction() as s:
        assert [claim(s, prefer_job=job.id).id for _ in wanted] == wanted
