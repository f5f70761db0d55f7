import pytest
from sqlalchemy import text

from core.errors import LeaseLostError
from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState
from store import events, jobs, steps
from tests.store.makers import new_job, put, search
from workers.phases import proposers
from workers.steps import advance


@pytest.fixture
def settings(database):
    return Settings(database_url=database.url, broker_url=None)


def claimed(database):
    with database.transaction() as session:
        return steps.claim(session, owner="control", devices=(Device.NONE,), lease_seconds=60)


def post(database):
    with database.transaction() as session:
        return jobs.create(session, search(models=[{"name": "a", "ref": "nobody"}, {"name": "b", "ref": "b"}]))[0]


def test_one_look_and_the_end_of_the_step_are_one_transaction(database, settings):
    job, step = post(database), claimed(database)
    advance.run(database, settings, step)
    with database.reading() as session:
        assert steps.get(session, step.id).state is StepState.DONE
        # Nobody is registered under that name.
        assert jobs.get(session, job.id).failure.code == "unknown_model"


def test_a_step_that_is_anothers_by_now_changes_nothing(database, settings):
    job, step = post(database), claimed(database)
    with database.transaction() as session:
        steps.release(session, "control")
    with pytest.raises(LeaseLostError):
        advance.run(database, settings, step)
    with database.reading() as session:
        assert jobs.get(session, job.id).state is JobState.QUEUED
        assert len(events.after(session, job.id, 0, 10)) == 1


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_halted_meanwhile_is_left_alone(database, settings, state):
    with database.transaction() as session:
        job = new_job(session)
        steps.ensure_advance(session, job.id)
    step = claimed(database)
    with database.transaction() as session:
        put(session, "jobs", job.id, state=state.value)
    if state in (JobState.FAILED, JobState.CANCELLED):
        with pytest.raises(LeaseLostError):
            advance.run(database, settings, step)
    else:
        advance.run(database, settings, step)
    with database.reading() as session:
        assert jobs.get(session, job.id).state is state
        assert steps.of_job(session, job.id, kinds=(StepKind.RUN_TRIAL,)) == []


def test_a_look_that_failed_is_rolled_back_and_forgets_the_study(database, settings, monkeypatch):
    job, step = post(database), claimed(database)
    forgotten = []
    monkeypatch.setattr(proposers, "forget", forgotten.append)

    def half(session, settings, job):
        jobs.move(session, job.id, JobState.PREPARING)
        session.execute(text("SELECT 1 / 0"))

    monkeypatch.setitem(advance.PHASES, JobState.QUEUED, half)
    with pytest.raises(Exception, match="division by zero"):
        advance.run(database, settings, step)
    assert forgotten == [job.id]
    with database.reading() as session:
        assert jobs.get(session, job.id).state is JobState.QUEUED
        assert steps.get(session, step.id).state is StepState.RUNNING
