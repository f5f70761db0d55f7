import pytest

from core.errors import LeaseLostError
from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState
from store import jobs, steps
from tests.store.makers import new_job, new_step, search
from workers import device
from workers.processes import Process
from workers.steps import advance
from workers.stopping import DRAINING


@pytest.fixture
def process(database):
    made = Process(Settings(database_url=database.url, broker_url=None))
    yield made
    made.database.dispose()


def post(database):
    with database.transaction() as s:
        return jobs.create(s, search(models=[{"name": "a", "ref": "nobody"}]))[0]


def job_of(database, job):
    with database.reading() as s:
        return jobs.get(s, job.id)


def test_a_worker_without_a_database_says_what_it_lacks():
    with pytest.raises(RuntimeError, match="HUARIZO_DATABASE_URL"):
        Process(Settings(database_url=None))


def test_a_control_worker_works_off_the_whole_backlog(database, process):
    waiting = [post(database) for _ in range(3)]
    process.answer("control")
    assert {job_of(database, job).failure.code for job in waiting} == {"unknown_model"}


def test_a_queue_gets_only_its_own_kinds_of_step(database, process):
    job = post(database)
    with database.transaction() as s:
        explain = new_step(s, StepKind.EXPLAIN, Device.NONE, payload={"job_id": "job_gone"})
    process.answer("control")
    with database.reading() as s:
        assert steps.get(s, explain.id).attempts == 0
    job = post(database)
    process.answer("inspect")
    assert job_of(database, job).state is JobState.QUEUED
    with database.reading() as s:
        assert steps.get(s, explain.id).failure.code == "not_found"


def test_device_queues_are_the_runners(process, monkeypatch):
    driven = []
    monkeypatch.setattr(device, "drive", lambda process, queue: driven.append(queue))
    process.answer("cpu")
    process.answer("cuda")
    assert driven == ["cpu", "cuda"]


def test_a_failure_is_recorded_and_never_raised(database, process, monkeypatch):
    job = post(database)

    def fail(*_):
        raise ValueError("odd")

    monkeypatch.setattr(advance, "run", fail)
    process.answer("control")
    with database.reading() as s:
        (step,) = steps.of_job(s, job.id)
    assert (step.state, step.attempts, step.failure.message) == (StepState.QUEUED, 1, "ValueError: odd")


def test_a_lost_lease_is_no_failure(database, process, monkeypatch):
    job, seen = post(database), []

    def lose(database, settings, step):
        seen.append(step)
        raise LeaseLostError("another holds it")

    monkeypatch.setattr(advance, "run", lose)
    process.answer("control")
    with database.reading() as s:
        assert steps.of_job(s, job.id) == seen


def test_a_step_is_held_under_a_heartbeat_in_the_workers_name(database, process, monkeypatch):
    post(database)
    seen = []
    monkeypatch.setattr(advance, "run", lambda database, settings, step: seen.append(step))
    process.answer("control")
    assert [step.owner for step in seen] == [process.owner]


def test_a_draining_worker_leaves_the_rest_of_the_backlog_alone(database, process):
    waiting = [post(database) for _ in range(3)]
    DRAINING.set()
    try:
        process.answer("control")
    finally:
        DRAINING.clear()
    states = [job_of(database, job).state for job in waiting]
    assert states == [JobState.FAILED, JobState.QUEUED, JobState.QUEUED]


def test_a_paused_job_is_left_alone(database, process):
    with database.transaction() as s:
        job = new_job(s, JobState.PAUSED)
        steps.ensure_advance(s, job.id)
    process.answer("control")
    with database.reading() as s:
        assert [step.state for step in steps.of_job(s, job.id)] == [StepState.DONE, StepState.QUEUED]


def test_a_childs_state_is_made_once(database, monkeypatch):
    monkeypatch.setattr(Process, "_current", None)
    monkeypatch.setenv("HUARIZO_DATABASE_URL", database.url)
    first = Process.current()
    assert Process.current() is first
    first.database.dispose()
