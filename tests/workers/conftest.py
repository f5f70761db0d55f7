"""A tiny nursery and a service without processes: steps are run in this process, in the order workers would."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from core.jobs import SearchJob
from core.records import Device, JobRecord, StepKind, StepRecord, TrialRecord
from core.settings import Settings
from core.states import JobState
from store import jobs, steps, trials
from store.session import Database
from workers.processes import Process

ALWAYS = {"save_dtype": "float32", "when": "always"}
#: The smallest search there is: two parents, one task, one method.
SMALL = {
    "models": [{"name": name, "ref": f"local:nursery/{name}"} for name in ("base", "arc")],
    "space": {"families": [{"family": "merge", "methods": ["linear"]}]},
    "objective": {"tasks": [{"task": "nursery_arc", "metric": "acc_norm"}]},
    "budget": {"trials": 2},
    "export": {"when": "never"},
}


@dataclass
class Service:
    """Settings, database and the means to run steps."""

    settings: Settings
    database: Database
    job_text: dict[str, Any]
    _opened: list[Any] = field(default_factory=list)

    def post(self, **changes: Any) -> JobRecord:
        """Store a job as the API would."""
        request = SearchJob.model_validate(self.job_text | changes)
        with self.database.transaction() as session:
            return jobs.create(session, request)[0]

    def job(self, job_id: str) -> JobRecord:
        with self.database.reading() as session:
            return jobs.get(session, job_id)

    def trials(self, job_id: str) -> list[TrialRecord]:
        with self.database.reading() as session:
            return trials.of_job(session, job_id)

    def steps(self, job_id: str, *kinds: StepKind) -> list[StepRecord]:
        with self.database.reading() as session:
            return steps.of_job(session, job_id, kinds=kinds or None)

    @functools.cached_property
    def process(self) -> Process:
        """A control worker's state."""
        process: Process = self._keep(Process(self.settings))
        return process

    def control(self) -> bool:
        """Run one control or inspect step."""
        with self.database.transaction() as session:
            step = steps.claim(session, owner="control", devices=(Device.NONE,), lease_seconds=60)
        if step is not None:
            self.process._run(step)
        return step is not None

    def runner(self) -> Any:
        """A runner's workbench with nothing loaded."""
        from workers.runner.bench import Bench

        return self._keep(Bench(self.settings, owner="runner"))

    def finish(self, job_id: str, runner: Any = None, limit: int = 400) -> JobRecord:
        """Run everything there is to run."""
        from workers.runner.work import run_next

        runner = runner or self.runner()
        for _ in range(limit):
            ran = self.control()
            ran = run_next(runner)["ran"] or ran
            if not ran:
                break
        return self.job(job_id)

    def until(self, kind: StepKind, limit: int = 100) -> StepRecord:
        """Run what comes before the first step of a kind, and claim that one as `runner` would."""
        from workers.runner.work import run_next

        runner = self.runner()
        for _ in range(limit):
            while self.control():
                pass
            with self.database.transaction() as session:
                step = steps.claim(session, owner="runner", devices=(Device.CPU,), kinds=(kind,), lease_seconds=60)
            if step is not None:
                return step
            assert run_next(runner)["ran"]
        raise AssertionError(f"no step of kind {kind}")

    def _keep(self, opened: Any) -> Any:
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        for opened in self._opened:
            opened.database.dispose()
        self.database.dispose()


def open_service(database_url: str, root: Path, artifacts: Path, **changes: Any) -> Service:
    """A service over a database without rows."""
    settings = Settings(
        **{
            "database_url": database_url,
            "broker_url": None,
            "model_roots": (root,),
            "task_folders": (root / "nursery" / "tasks",),
            "artifacts": artifacts,
            "device": "cpu",
            "threads": 1,
            **changes,
        }
    )
    text = json.loads(Path("examples/nursery/job.json").read_text())
    text["budget"] = {"trials": 4}
    text["racing"] = {"rungs": [8, 16]}
    return Service(settings, Database(database_url), text)


@pytest.fixture(scope="session")
def smoke_nursery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with a family grown in seconds."""
    from examples.nursery.grow import GrowthPlan, grow

    root = tmp_path_factory.mktemp("models")
    torch.set_num_threads(1)
    grow(root / "nursery", plan=GrowthPlan.smoke())
    return root


@pytest.fixture(scope="session")
def tasks_read_once() -> Iterator[None]:
    """Reading tasks takes half of a tiny job's time, and gives the same for every test."""
    from workers.runner import bench, inspect_task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "prepare", functools.cache(bench.prepare))
        patch.setattr(inspect_task, "inspect_task", functools.cache(inspect_task.inspect_task))
        patch.setattr("workers.runner.work.WAIT_SECONDS", 0.0)
        yield


@pytest.fixture
def service(database_url: str, smoke_nursery: Path, tmp_path: Path, tasks_read_once: None) -> Iterator[Service]:
    """A service over a fresh database."""
    opened = open_service(database_url, smoke_nursery, tmp_path / "artifacts")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def finished(
    databases: Any, smoke_nursery: Path, tmp_path_factory: pytest.TempPathFactory, tasks_read_once: None
) -> Iterator[tuple[Service, JobRecord]]:
    """A service with one job that went all the way. Tests may read it, and add to it what no other test reads."""
    url = databases.take()
    opened = open_service(url, smoke_nursery, tmp_path_factory.mktemp("artifacts"))
    job = opened.finish(opened.post(export=ALWAYS).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    yield opened, job
    opened.close()
    databases.drop(url)
