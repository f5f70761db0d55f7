from types import SimpleNamespace

import pytest

from core.errors import TaskError
from core.outcomes import bitmap
from core.records import Device, StepKind
from core.states import StepState
from core.tasks import TaskContent
from store import steps, tasks
from tests.store.makers import claim, new_job, new_step
from workers.runner import inspect_task


def content(search):
    return TaskContent(
        name="t",
        version="1",
        content_digest="d" * 64,
        documents=8,
        search=bitmap(search, 8).hex(),
        metrics=("acc",),
        has_fewshot=False,
    )


@pytest.fixture
def inspected(database, monkeypatch):
    """Runs the step for a task with these search items."""

    def run(search):
        monkeypatch.setattr(inspect_task, "inspect_task", lambda name, folders: content(search))
        with database.transaction() as s:
            job = new_job(s)
            new_step(s, StepKind.INSPECT_TASK, job_id=job.id, payload={"task": "t"})
            step = claim(s, Device.CPU)
        inspect_task.run(SimpleNamespace(database=database, folders=None, kind=Device.CPU), step, None)
        with database.reading() as s:
            return job, steps.get(s, step.id)

    return run


def test_the_content_is_stored_and_the_job_told(database, inspected):
    job, step = inspected(range(5))
    assert step.state is StepState.DONE
    assert step.result == {"content": "d" * 64, "device": "cpu"}
    with database.reading() as s:
        assert tasks.get(s, "t", "d" * 64) == content(range(5))
        assert steps.of_job(s, job.id, kinds=(StepKind.ADVANCE,), states=(StepState.QUEUED,))


@pytest.mark.parametrize(("search", "side"), [(range(8), "heldout"), ((), "search")])
def test_a_task_with_an_empty_side_cannot_be_searched(database, inspected, search, side):
    with pytest.raises(TaskError, match=f"no {side} items"):
        inspected(search)
    with database.reading() as s:
        assert not tasks.known(s)
