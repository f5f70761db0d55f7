import shutil

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError, ServiceUnavailableError, UnknownModelError
from core.records import Device
from core.settings import Settings
from core.states import JobState
from store import models
from tests.workers.conftest import SMALL
from workers.runner import bench as module
from workers.runner import inspect_task
from workers.runner.bench import Bench


@pytest.fixture
def copied(service, smoke_nursery, tmp_path):
    """The service over a copy of models and tasks that a test may change."""
    from examples.nursery.tasks import write_task_files

    root = tmp_path / "models"
    shutil.copytree(smoke_nursery, root)
    write_task_files(root / "nursery" / "tasks")
    folders = {"model_roots": (root,), "task_folders": (root / "nursery" / "tasks",)}
    service.settings = service.settings.model_copy(update=folders)
    return service, root / "nursery"


def test_a_runner_without_a_database_says_what_it_lacks():
    with pytest.raises(ServiceUnavailableError, match="HUARIZO_DATABASE_URL"):
        Bench(Settings(database_url=None), owner="runner")


def test_a_cpu_runner_uses_the_threads_it_was_given(service):
    before = torch.get_num_threads()
    try:
        service.settings = service.settings.model_copy(update={"threads": 2})
        runner = service.runner()
        assert runner.device == torch.device("cpu") and torch.get_num_threads() == 2
        assert runner.kind is Device.CPU and runner.devices == (Device.CPU,)
    finally:
        torch.set_num_threads(before)


def test_a_gpu_runner_takes_steps_for_any_device(service):
    service.settings = service.settings.model_copy(update={"device": "cuda:0"})
    assert service.runner().devices == (Device.CUDA, Device.CPU)


def test_parents_are_loaded_once_for_all_jobs_that_share_them(finished):
    service, job = finished
    runner = service.runner()
    known = runner.models_of(job)
    resident = runner.resident(known)
    assert runner.resident({name: known[name] for name in ("base", "arc")}) is resident
    few = service.runner()
    first = few.resident({"base": known["base"]})
    assert few.resident(known) is not first
    assert few.parents(known) is few.resident(known).parents


def test_models_that_nobody_inspected_are_unknown(service):
    job = service.post(**SMALL)
    with service.database.transaction() as session:
        models.register(session, "local:nursery/base", "local:nursery/base")
    with pytest.raises(UnknownModelError, match="post the job again"):
        service.runner().models_of(job)


def test_files_that_changed_since_their_inspection_are_not_scored(copied):
    service, nursery = copied
    job = service.post(**SMALL)
    while service.control():
        pass
    runner = service.runner()
    known = runner.models_of(job)
    file = nursery / "arc" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="'arc' changed"):
        runner.resident(known)
    finished = service.finish(job.id)
    assert finished.state is JobState.FAILED and finished.failure.code == "bad_checkpoint"


def test_tasks_are_prepared_once_per_job_and_dtype(finished):
    service, job = finished
    runner = service.runner()
    known = runner.models_of(job)
    recipe = service.trials(job.id)[0].resolved
    scorer = runner.scorer(job, recipe, known)
    assert runner.scorer(job, recipe, known) is scorer
    assert runner.fingerprints(scorer) == job.fingerprints
    assert runner.fingerprints(scorer) is runner.fingerprints(scorer)


def test_a_runner_that_lives_on_reads_documents_that_changed_anew(copied, monkeypatch):
    # Both are remembered over all tests elsewhere.
    monkeypatch.setattr(module, "prepare", module.prepare.__wrapped__)
    monkeypatch.setattr(inspect_task, "inspect_task", inspect_task.inspect_task.__wrapped__)
    service, nursery = copied
    runner = service.runner()
    first = service.finish(service.post(**SMALL).id, runner)
    (file,) = (nursery / "tasks").rglob("*arc*/*test*.parquet")
    documents = pq.read_table(file)
    pq.write_table(documents.slice(0, documents.num_rows - 2), file)
    second = service.finish(service.post(**SMALL).id, runner)
    assert (first.state, second.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED), second.failure
    assert first.contents != second.contents and first.fingerprints != second.fingerprints
    (before,), (after,) = (service.trials(job.id)[0].heldout for job in (first, second))
    assert after.n == before.n - 2
