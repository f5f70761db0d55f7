import pytest

from core.errors import (
    CancelledError,
    DiskFullError,
    LeaseLostError,
    MissingCheckpointError,
    NonFiniteWeightsError,
    OutOfMemoryError,
    ParentsDoNotFitError,
    TaskError,
)
from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState, TrialState
from store import events, jobs, models, steps, trials
from tests.store.makers import age, claim, new_job, new_step, new_trial
from workers.failures import failure_of, settle

BROKEN = NonFiniteWeightsError("tensor 'x' holds NaN", where="x")


@pytest.fixture
def settings(database):
    return Settings(database_url=database.url, broker_url=None, max_attempts=2)


@pytest.fixture
def running(database):
    """A running job, its running trial and the trial's step."""
    with database.transaction() as s:
        job = new_job(s)
        trial = new_trial(s, job.id)
        trials.move(s, trial.id, TrialState.RUNNING)
        return job, trial, claim(s)


def read(database, of, record):
    with database.reading() as s:
        return of.get(s, record.id)


def history(database, job):
    with database.reading() as s:
        return [(e.kind, e.payload.get("state")) for e in events.after(s, job.id, 0, 100)]


def test_a_failure_has_the_errors_code_message_and_place():
    assert failure_of(BROKEN).model_dump() == {
        "code": "non_finite_weights",
        "message": "tensor 'x' holds NaN",
        "where": "x",
    }
    assert failure_of(MemoryError()).code == "out_of_memory"
    odd = failure_of(ZeroDivisionError("division by zero"))
    assert (odd.code, odd.message) == ("internal", "ZeroDivisionError: division by zero")
    assert len(failure_of(RuntimeError("x" * 10_000)).message) == 2000


@pytest.mark.parametrize(
    "error", [BROKEN, OutOfMemoryError("no room"), TaskError("documents changed"), ParentsDoNotFitError("vocabulary")]
)
def test_an_error_that_no_retry_can_mend_fails_the_trial_at_once(database, settings, running, error):
    job, trial, step = running
    settle(database, settings, step, error)
    ended = read(database, trials, trial)
    assert ended.state is TrialState.FAILED and ended.failure == failure_of(error)
    failed = read(database, steps, step)
    assert (failed.state, failed.attempts, failed.failure) == (StepState.FAILED, 1, failure_of(error))
    assert read(database, jobs, job).state is JobState.RUNNING
    with database.reading() as s:
        (advance,) = steps.of_job(s, job.id, kinds=(StepKind.ADVANCE,), states=(StepState.QUEUED,))
    assert advance.not_before is None


def test_an_unforeseen_error_is_tried_once_more_after_a_pause(database, settings, running):
    _, trial, step = running
    settle(database, settings, step, ValueError("odd"))
    queued = read(database, steps, step)
    assert (queued.state, queued.attempts, queued.failure.code) == (StepState.QUEUED, 1, "internal")
    assert queued.not_before is not None
    assert read(database, trials, trial).state is TrialState.RUNNING
    with database.transaction() as s:
        assert claim(s, Device.CPU) is None
        age(s, step.id, "not_before", 60)
        again = claim(s, Device.CPU)
    settle(database, settings, again, ValueError("odd"))
    ended = read(database, trials, trial)
    assert (ended.state, ended.failure.code, ended.failure.message) == (
        TrialState.FAILED,
        "internal",
        "ValueError: odd",
    )


@pytest.mark.parametrize("error", [LeaseLostError("another holds it"), CancelledError("cancelled")])
def test_the_end_of_a_lease_is_no_failure(database, settings, running, error):
    _, trial, step = running
    settle(database, settings, step, error)
    assert read(database, steps, step) == step
    assert read(database, trials, trial).state is TrialState.RUNNING


def test_a_failure_that_comes_after_the_lease_changes_nothing(database, settings, running):
    job, trial, step = running
    with database.transaction() as s:
        steps.release(s, step.owner)
        again = claim(s, owner="another")
    before = history(database, job)
    settle(database, settings, step, BROKEN)
    assert read(database, steps, step) == again
    assert read(database, trials, trial).state is TrialState.RUNNING
    assert history(database, job) == before


def test_consequences_are_borne_once(database, settings, running):
    job, _, step = running
    settle(database, settings, step, BROKEN)
    before = history(database, job)
    settle(database, settings, step, TaskError("another reason"))
    assert history(database, job) == before
    assert before.count(("trial_state", "failed")) == 1
    assert read(database, steps, step).attempts == 1


def test_a_trial_that_ended_meanwhile_keeps_its_end(database, settings, running):
    _, trial, step = running
    with database.transaction() as s:
        trials.move(s, trial.id, TrialState.STOPPED)
    settle(database, settings, step, BROKEN)
    assert read(database, trials, trial).state is TrialState.STOPPED
    assert read(database, steps, step).state is StepState.FAILED


def model_step(s, job):
    record = models.register(s, "m", "hub:herd/m")
    new_step(s, StepKind.INSPECT_MODEL, Device.NONE, job_id=job.id, payload={"model_id": record.id})
    return record, claim(s, kinds=(StepKind.INSPECT_MODEL,))


def test_a_model_that_cannot_be_used_is_marked_and_its_job_looks_again(database, settings):
    with database.transaction() as s:
        job = new_job(s, JobState.PREPARING)
        model, step = model_step(s, job)
    settle(database, settings, step, MissingCheckpointError("no config", where="config.json"))
    found = read(database, models, model)
    assert (found.state, found.failure.code) == ("failed", "missing_checkpoint")
    assert read(database, jobs, job).state is JobState.PREPARING
    with database.reading() as s:
        assert steps.of_job(s, job.id, kinds=(StepKind.ADVANCE,), states=(StepState.QUEUED,))


def test_a_model_that_was_ready_stays_ready_when_it_cannot_be_read_again(database, settings):
    from tests.core.families import model as imagined

    with database.transaction() as s:
        job = new_job(s, JobState.PREPARING)
        model, step = model_step(s, job)
        models.mark_ready(s, model.id, imagined("m").header, "w" * 64)
    settle(database, settings, step, MissingCheckpointError("no config"))
    assert read(database, models, model).state == "ready"
    assert read(database, steps, step).state is StepState.FAILED


@pytest.mark.parametrize("kind", [StepKind.ADVANCE, StepKind.INSPECT_TASK, StepKind.EXPORT])
def test_a_job_fails_with_the_code_of_the_step_it_cannot_do_without(database, settings, kind):
    with database.transaction() as s:
        job = new_job(s)
        new_step(s, kind, Device.CPU, job_id=job.id)
        step = claim(s, kinds=(kind,))
    settle(database, settings, step, TaskError("documents changed", where="t"))
    ended = read(database, jobs, job)
    assert (ended.state, ended.failure.code, ended.failure.where) == (JobState.FAILED, "bad_task", "t")


def test_a_reading_that_failed_has_the_job_looked_at_and_nothing_more(database, settings):
    with database.transaction() as s:
        job = new_job(s, JobState.CONFIRMING)
        new_step(s, StepKind.CONFIRM, Device.CPU, job_id=job.id)
        step = claim(s, kinds=(StepKind.CONFIRM,))
    settle(database, settings, step, OutOfMemoryError("no room"))
    assert read(database, jobs, job).state is JobState.CONFIRMING
    assert read(database, steps, step).failure.code == "out_of_memory"
    with database.reading() as s:
        assert steps.of_job(s, job.id, kinds=(StepKind.ADVANCE,), states=(StepState.QUEUED,))


def test_a_full_disk_is_tried_again_before_it_fails_the_job(database, settings):
    with database.transaction() as s:
        job = new_job(s)
        new_step(s, StepKind.EXPORT, Device.CPU, job_id=job.id)
        step = claim(s, kinds=(StepKind.EXPORT,))
    settle(database, settings, step, DiskFullError("no space is left"))
    assert read(database, jobs, job).state is JobState.RUNNING
    assert read(database, steps, step).state is StepState.QUEUED


@pytest.mark.parametrize("of_job", [True, False])
def test_a_checkpoint_that_somebody_asked_for_costs_the_job_nothing(database, settings, of_job):
    with database.transaction() as s:
        job = new_job(s)
        trial = new_trial(s, job.id)
        owner = {"job_id": job.id} if of_job else {}
        new_step(s, StepKind.EXPORT, Device.CPU, trial_id=trial.id, payload={"asked": True}, **owner)
        step = claim(s, kinds=(StepKind.EXPORT,))
    settle(database, settings, step, BROKEN)
    assert read(database, jobs, job).state is JobState.RUNNING
    assert read(database, steps, step).failure.code == "non_finite_weights"
