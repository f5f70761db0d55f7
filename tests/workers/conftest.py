"""A tiny nursery and a service without processes: steps are run in this process, in the order workers would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from core.jobs import SearchJob
from core.records import Device, JobRecord
from core.settings import Settings
from store import jobs, steps
from store.session import Database


@dataclass
class Bench:
    """Settings, database and the means to run steps."""

    settings: Settings
    database: Database
    job_text: dict

    def post(self, **changes) -> JobRecord:
        """Store a job as the API would."""
        request = SearchJob.model_validate(self.job_text | changes)
        with self.database.transaction() as session:
            return jobs.create(session, request)[0]

    def job(self, job_id: str) -> JobRecord:
        with self.database.reading() as session:
            return jobs.get(session, job_id)

    def control(self) -> bool:
        """Run one control or inspect step."""
        from workers.heart import Heart
        from workers.processes import Process

        process = Process(self.settings)
        with self.database.transaction() as session:
            step = steps.claim(session, owner="control", devices=(Device.NONE,), lease_seconds=60)
        if step is None:
            return False
        with Heart(self.database, step, 60):
            process._run(step)
        process.database.dispose()
        return True

    def runner(self):
        from workers.runner.bench import Bench as Workbench

        return Workbench(self.settings, owner="runner")

    def finish(self, job_id: str, limit: int = 400) -> JobRecord:
        """Run everything there is to run."""
        from workers.runner.work import run_next

        runner = self.runner()
        for _ in range(limit):
            ran = self.control()
            ran = run_next(runner)["ran"] or ran
            if not ran:
                break
        runner.database.dispose()
        return self.job(job_id)


@pytest.fixture(scope="session")
def smoke_nursery(tmp_path_factory) -> Path:
    """A model root with a family grown in seconds."""
    from examples.nursery.grow import GrowthPlan, grow

    root = tmp_path_factory.mktemp("models")
    torch.set_num_threads(1)
    grow(root / "nursery", plan=GrowthPlan.smoke())
    return root


@pytest.fixture
def service(database_url, smoke_nursery, tmp_path, monkeypatch) -> Iterator[Bench]:
    """A service over a fresh database."""
    monkeypatch.setattr("workers.runner.work.WAIT_SECONDS", 0.0)
    settings = Settings(
        database_url=database_url,
        broker_url=None,
        model_roots=(smoke_nursery,),
        task_folders=(smoke_nursery / "nursery" / "tasks",),
        artifacts=tmp_path / "artifacts",
        device="cpu",
        threads=1,
    )
    text = json.loads(Path("examples/nursery/job.json").read_text())
    text["budget"] = {"trials": 4}
    text["racing"] = {"rungs": [8, 16]}
    bench = Bench(settings, Database(database_url), text)
    yield bench
    bench.database.dispose()
