from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, text

from core.errors import ConflictError, NotFoundError
from core.jobs import Budget
from core.records import Device, StepKind
from core.states import JOB_MOVES, JobState, StepState, TrialState
from store import events, jobs, steps, trials
from tests.store.makers import FAILURE, at_once, claim, new_job, new_step, new_trial, put, rung, search


def _states_of_trials(s, job):
    return [trial.state for trial in trials.of_job(s, job.id)]


def test_a_new_job_is_queued_with_an_advance_step_an_event_and_a_bell(database):
    with database.transaction() as s:
        job, created = jobs.create(s, search(name="first"))
        assert created
        assert (job.state, job.name, job.kind) == (JobState.QUEUED, "first", "search")
        (step,) = steps.of_job(s, job.id)
        assert (step.kind, step.device, step.state) == (StepKind.ADVANCE, Device.NONE, StepState.QUEUED)
        assert list(s.bells) == [("control", "advance", step.id)]
    with database.reading() as s:
        assert jobs.get(s, job.id) == job
        assert [(e.kind, e.payload) for e in events.after(s, job.id, 0, 10)] == [("job_state", {"state": "queued"})]


def test_a_request_comes_back_exactly_with_its_digest(database):
    request = search(space={"families": [{"family": "merge", "methods": ["linear"], "params": {"weight": -0.0}}]})
    with database.transaction() as s:
        job, _ = jobs.create(s, request)
    with database.reading() as s:
        stored = jobs.get(s, job.id).request
    assert stored == request
    assert stored.digest() == request.digest()


def test_the_same_key_and_body_return_the_first_job(database):
    with database.transaction() as s:
        first, created = jobs.create(s, search(), idempotency_key="k")
    assert created
    with database.transaction() as s:
        again, created = jobs.create(s, search(), idempotency_key="k")
        assert s.bells == {}
        assert len(steps.of_job(s, first.id)) == 1
    assert (again, created) == (first, False)


def test_the_same_key_with_another_body_is_refused(database):
    with database.transaction() as s:
        jobs.create(s, search(), idempotency_key="k")
    with database.transaction() as s, pytest.raises(ConflictError, match="'k' created"):
        jobs.create(s, search(seed=1), idempotency_key="k")


def test_jobs_without_a_key_are_all_different(database):
    with database.transaction() as s:
        assert jobs.create(s, search())[0].id != jobs.create(s, search())[0].id


def test_twenty_equal_posts_at_once_make_one_job(database):
    def post(_: int) -> tuple[str, bool]:
        with database.transaction() as s:
            job, created = jobs.create(s, search(), idempotency_key="k")
            return job.id, created

    found = at_once(post, 20)
    assert len({id for id, _ in found}) == 1
    assert [created for _, created in found].count(True) == 1
    with database.reading() as s:
        assert len(jobs.page(s, 50).items) == 1


def test_every_pair_of_states_is_a_move_or_a_conflict(database):
    with database.transaction() as s:
        job = new_job(s)
    for source in JobState:
        for target in JobState:
            with database.transaction() as s:
                put(s, "jobs", job.id, state=source.value)
            with database.transaction() as s:
                if target in JOB_MOVES[source]:
                    assert jobs.move(s, job.id, target).state is target
                else:
                    with pytest.raises(ConflictError, match=source.value):
                        jobs.move(s, job.id, target)
            with database.reading() as s:
                assert jobs.get(s, job.id).state is (target if target in JOB_MOVES[source] else source)


def test_moves_set_the_times_and_append_events(database):
    with database.transaction() as s:
        job, _ = jobs.create(s, search())
        assert jobs.move(s, job.id, JobState.PREPARING).started_at is None
        started = jobs.move(s, job.id, JobState.RUNNING).started_at
        assert started is not None
        jobs.pause(s, job.id)
    with database.transaction() as s:
        assert jobs.resume(s, job.id).started_at == started
        assert jobs.move(s, job.id, JobState.CONFIRMING).finished_at is None
        done = jobs.move(s, job.id, JobState.SUCCEEDED, verdict={"verdict": "gain"})
        assert done.finished_at is not None
        assert done.verdict == {"verdict": "gain"}
        states = [e.payload["state"] for e in events.after(s, job.id, 0, 99)]
    assert states == ["queued", "preparing", "running", "paused", "running", "confirming", "succeeded"]


def test_a_move_sets_no_other_field(database):
    with database.transaction() as s:
        job = new_job(s)
        with pytest.raises(ValueError, match="name"):
            jobs.move(s, job.id, JobState.CONFIRMING, name="new")


def test_an_unknown_job_is_not_found(database):
    for act in (jobs.get, jobs.cancel, jobs.pause, jobs.resume):
        with database.transaction() as s, pytest.raises(NotFoundError, match="'job_0'"):
            act(s, "job_0")
    with database.transaction() as s, pytest.raises(NotFoundError):
        jobs.move(s, "job_0", JobState.RUNNING)


def test_cancelling_ends_the_job_its_unfinished_trials_and_its_open_steps(database):
    with database.transaction() as s:
        job = new_job(s)
        done, waiting, running, queued = (new_trial(s, job.id, device=Device.CUDA) for _ in range(4))
        put(s, "trials", done.id, state="scored")
        put(s, "trials", waiting.id, state="waiting")
        put(s, "trials", running.id, state="running")
        held = claim(s, Device.CUDA)
    with database.transaction() as s:
        assert jobs.cancel(s, job.id).state is JobState.CANCELLED
    with database.transaction() as s:
        kept = [TrialState.SCORED, *[TrialState.CANCELLED] * 3]
        assert _states_of_trials(s, job) == kept
        assert {step.state for step in steps.of_job(s, job.id, (StepKind.RUN_TRIAL,))} == {StepState.CANCELLED}
        assert steps.heartbeat(s, held.id, held.fence, 60) == "cancelled"
        assert claim(s) is None
        told = [e.payload["number"] for e in events.of_kind(s, job.id, "trial_state") if e.payload["state"] != "queued"]
    assert told == [waiting.number, running.number, queued.number]


def test_cancelling_twice_changes_nothing_and_a_finished_job_cannot_be_cancelled(database):
    with database.transaction() as s:
        job, other = new_job(s), new_job(s)
        jobs.cancel(s, job.id)
        before = len(events.after(s, job.id, 0, 99))
        assert jobs.cancel(s, job.id).state is JobState.CANCELLED
        assert len(events.after(s, job.id, 0, 99)) == before
        jobs.move(s, other.id, JobState.SUCCEEDED)
        with pytest.raises(ConflictError, match="succeeded"):
            jobs.cancel(s, other.id)


def test_a_failing_job_leaves_the_guarded_step_to_its_holder(database):
    with database.transaction() as s:
        job = new_job(s)
        trial = new_trial(s, job.id)
        steps.ensure_advance(s, job.id)
        advance = claim(s, Device.NONE)
    with database.transaction() as s:
        steps.guard(s, advance.id, advance.fence)
        failed = jobs.fail(s, job.id, FAILURE)
        assert steps.finish(s, advance.id, advance.fence).state is StepState.DONE
    assert (failed.state, failed.failure) == (JobState.FAILED, FAILURE)
    with database.reading() as s:
        assert trials.get(s, trial.id).state is TrialState.CANCELLED


def test_success_cancels_what_is_queued_but_not_the_step_that_brought_it(database):
    with database.transaction() as s:
        job = new_job(s, JobState.EXPORTING)
        export = new_step(s, StepKind.EXPORT, job_id=job.id)
        held = claim(s, Device.CPU)
        assert held.id == export.id
        left = new_step(s, job_id=job.id)
        jobs.move(s, job.id, JobState.SUCCEEDED)
        assert steps.finish(s, held.id, held.fence).state is StepState.DONE
        assert steps.get(s, left.id).state is StepState.CANCELLED


def test_a_paused_job_starts_no_step_and_resuming_rings_for_all_that_wait(database):
    with database.transaction() as s:
        job = new_job(s)
        new_trial(s, job.id)
        jobs.pause(s, job.id)
    with database.transaction() as s:
        assert claim(s) is None
    with database.transaction() as s:
        assert jobs.resume(s, job.id).state is JobState.RUNNING
        assert sorted(rung(s)) == [("control", "advance"), ("cpu", "run_trial")]
    with database.transaction() as s:
        assert {claim(s).kind, claim(s).kind} == {StepKind.ADVANCE, StepKind.RUN_TRIAL}


def test_only_a_paused_job_resumes(database):
    with database.transaction() as s:
        job = new_job(s, JobState.PREPARING)
        with pytest.raises(ConflictError, match="paused can be resumed"):
            jobs.resume(s, job.id)


def test_a_verdict_is_kept_unless_the_job_came_to_nothing(database):
    with database.transaction() as s:
        job = new_job(s, JobState.CONFIRMING)
        assert jobs.set_verdict(s, job.id, {"verdict": "no gain", "p": 0.3}).verdict == {"verdict": "no gain", "p": 0.3}
        jobs.cancel(s, job.id)
        with pytest.raises(ConflictError):
            jobs.set_verdict(s, job.id, {})


def test_the_first_to_pin_wins_and_everyone_learns_what_is_in_force(database):
    with database.transaction() as s:
        job = new_job(s)

    def pin(number: int) -> dict[str, str]:
        with database.transaction() as s:
            return jobs.pin_fingerprints(s, job.id, {"arc": f"f{number}", f"only{number}": "x"})

    found = at_once(pin, 8)
    winners = {answer["arc"] for answer in found}
    assert len(winners) == 1
    with database.reading() as s:
        kept = jobs.get(s, job.id).fingerprints
    assert kept == {"arc": winners.pop(), **{f"only{n}": "x" for n in range(8)}}


def test_contents_are_pinned_apart_from_fingerprints(database):
    with database.transaction() as s:
        job = new_job(s)
        assert jobs.pin_contents(s, job.id, {"arc": "one"}) == {"arc": "one"}
        assert jobs.pin_contents(s, job.id, {"arc": "two", "hs": "three"}) == {"arc": "one", "hs": "three"}
        assert jobs.get(s, job.id).fingerprints == {}
        assert jobs.get(s, job.id).contents == {"arc": "one", "hs": "three"}


def test_counts_from_many_workers_add_up(database):
    with database.transaction() as s:
        job = new_job(s)

    def add(number: int) -> None:
        with database.transaction() as s:
            jobs.count(s, job.id, items=number, heldout_reads=1)

    at_once(add, 10)
    with database.reading() as s:
        found = jobs.get(s, job.id)
    assert (found.items_scored, found.heldout_reads) == (45, 10)


def test_pages_run_from_the_newest_job_to_the_oldest_and_skip_none(database):
    with database.transaction() as s:
        ids = [new_job(s).id for _ in range(5)]
        jobs.cancel(s, ids[1])
    with database.transaction() as s:
        first = jobs.page(s, 2)
        new_job(s)  # created meanwhile: must not shift what follows
        second = jobs.page(s, 2, first.next_cursor)
        third = jobs.page(s, 2, second.next_cursor)
        pages = [first, second, third]
        assert [job.id for page in pages for job in page.items] == ids[::-1]
        assert third.next_cursor is None
        assert [job.id for job in jobs.page(s, 9, state=JobState.CANCELLED).items] == [ids[1]]


def test_time_in_a_pause_does_not_count_as_running(database):
    with database.transaction() as s:
        job = new_job(s)
        put(s, "jobs", job.id, started_at=func.now() - text("interval '100 s'"))
        jobs.pause(s, job.id)
        put(s, "jobs", job.id, paused_at=func.now() - text("interval '60 s'"))
    with database.reading() as s:
        paused = jobs.get(s, job.id)
    later = paused.started_at + timedelta(seconds=5000)
    assert paused.running_seconds(later) == pytest.approx(40, abs=1)
    with database.transaction() as s:
        resumed = jobs.resume(s, job.id)
    assert resumed.paused_seconds == pytest.approx(60, abs=5)
    assert resumed.paused_at is None
    assert resumed.running_seconds(resumed.started_at + timedelta(seconds=100)) == pytest.approx(40, abs=5)


def test_an_extended_job_looks_again_and_keeps_its_idempotency_key(database):
    with database.transaction() as s:
        job, _ = jobs.create(s, search(), idempotency_key="once")
        step = claim(s, Device.NONE)
        steps.finish(s, step.id, step.fence)
    with database.transaction() as s:
        extended = jobs.extend(s, job.id, Budget(trials=9))
        assert extended.request.budget.trials == 9
        assert [step.state for step in steps.of_job(s, job.id)] == [StepState.DONE, StepState.QUEUED]
        assert jobs.extend(s, job.id, Budget(trials=9)) == extended
        (event,) = events.of_kind(s, job.id, "extended")
        assert (event.payload["before"]["trials"], event.payload["after"]["trials"]) == (5, 9)
    with database.transaction() as s:
        again, created = jobs.create(s, search(), idempotency_key="once")
        assert (again.id, created, again.request.budget.trials) == (job.id, False, 9)


@pytest.mark.parametrize("state", ["confirming", "exporting", "succeeded", "failed", "cancelled"])
def test_a_search_that_has_ended_is_final_and_the_refusal_says_what_to_do_instead(database, state):
    with database.transaction() as s:
        job = new_job(s, JobState(state))
        with pytest.raises(ConflictError, match="clone it with a new budget and warm_start"):
            jobs.extend(s, job.id, Budget(trials=9))


def test_a_paused_job_is_extended_without_being_woken(database):
    with database.transaction() as s:
        job = new_job(s, JobState.PAUSED)
        assert jobs.extend(s, job.id, Budget(trials=9)).state is JobState.PAUSED
        assert all(step.state.final for step in steps.of_job(s, job.id))


def test_seconds_of_a_kind_of_step_are_summed_over_those_that_are_done(database):
    with database.transaction() as s:
        job = new_job(s)
        for seconds in (1.5, 2.25):
            new_step(s, StepKind.REFINE, job_id=job.id)
            claimed = claim(s, Device.CPU)
            steps.finish(s, claimed.id, claimed.fence, {"seconds": seconds})
        new_step(s, StepKind.REFINE, job_id=job.id)
        assert steps.seconds_of(s, job.id, StepKind.REFINE) == 3.75
        assert steps.seconds_of(s, job.id, StepKind.EXPORT) == 0.0
