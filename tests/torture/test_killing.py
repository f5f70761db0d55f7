"""A real `huarizo up`, killed piece by piece in the middle of a search: nothing is lost, nothing is scored twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from core.outcomes import Outcomes, bits, unpack
from core.states import TrialState
from huarizo.client import Client
from huarizo.embedded import connection
from huarizo.service import address
from store import tables, tasks, trials
from store.session import Database

pytestmark = pytest.mark.torture

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240.0


class Service:
    """`huarizo up` over one data folder, started as often as it is killed."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.home = folder / "home"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HUARIZO_")},
            "HUARIZO_HOME": str(self.home),
            "HUARIZO_PORT": "0",
            "HUARIZO_MODEL_ROOTS": str(models),
            "HUARIZO_TASK_FOLDERS": str(models / "nursery" / "tasks"),
            "HUARIZO_LEASE_SECONDS": "15",
            "HUARIZO_RECONCILE_SECONDS": "1",
            "HUARIZO_RING_SECONDS": "2",
            "HUARIZO_THREADS": "1",
        }
        self.log = (folder / "up.log").open("a")
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> Client:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "huarizo", "up"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=self.log, stderr=self.log)
        until(lambda: (there := address.running(self.home)) is not None and there.ready, "the service is ready")
        there = address.running(self.home)
        assert there is not None
        return Client(there.url)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this data folder, wherever it hangs in the process tree."""
        return [p for p in psutil.process_iter() if self._ours(p)]

    def _ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and (
                process.environ().get("HUARIZO_HOME") == str(self.home) or str(self.home) in " ".join(process.cmdline())
            )
        except psutil.Error:
            return False

    def kill(self, words: str) -> None:
        """kill -9 of the oldest of our processes whose command line has `words`."""
        found = [p for p in self.processes() if words in " ".join(p.cmdline())]
        assert found, f"no process with {words!r}"
        min(found, key=lambda p: p.create_time()).kill()

    def kill_all_of_it(self) -> None:
        """kill -9 of `huarizo up` itself; all its children must go by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        until(lambda: not self.processes(), "no process is left", 15)

    def down(self) -> None:
        """Stop it as a user does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def database(self) -> Database:
        """Its database, from outside."""
        info = connection.running(self.home)
        assert info is not None
        return Database(info.database_url)


def until(true: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline, f"it took longer than {limit:g} s until {what}"
        time.sleep(0.1)


@pytest.fixture
def service(smoke_models: Path) -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="hz-", dir="/tmp"))
    folder.chmod(0o711)
    running = Service(folder, smoke_models)
    yield running
    running.down()
    for process in running.processes():
        process.kill()
    running.log.close()
    shutil.rmtree(folder, ignore_errors=True)


def committed(database: Database) -> dict[tuple[str, str], Outcomes]:
    """Every committed outcome."""
    with database.reading() as session:
        rows = session.execute(select(tables.outcomes)).all()
    return {
        (row.recipe_digest, row.fingerprint): unpack(bytes(row.presence), bytes(row.correct), bytes(row.margins))
        for row in rows
    }


def test_a_search_survives_the_death_of_its_runner_its_worker_and_the_whole_service(service: Service) -> None:
    client = service.up()
    job = json.loads((ROOT / "examples" / "nursery" / "job.json").read_text())
    # A refinement's items leave no outcomes, with which those that were counted are compared below.
    job |= {"budget": {"trials": 30}, "racing": {"rungs": [8, 16]}, "parallel": 2, "refine": {"enabled": False}}
    posted = client.submit(job)["id"]
    database = service.database()

    def done() -> int:
        with database.reading() as session:
            return sum(trial.state.final for trial in trials.of_job(session, posted))

    until(lambda: done() >= 4, "the parents are scored")
    service.kill("workers.runner")
    before = done()
    until(lambda: done() >= before + 4, "the search goes on after the runner's death")
    service.kill("--queues cpu")
    before = done()
    until(lambda: done() >= before + 4, "the search goes on after the worker's death")
    kept = committed(database)
    service.kill_all_of_it()
    database.dispose()

    client = service.up()
    until(lambda: client.job(posted)["state"] in ("succeeded", "failed"), "the search has ended")
    assert client.job(posted)["state"] == "succeeded", client.job(posted)
    database = service.database()
    final = committed(database)
    for key, outcomes in kept.items():
        assert final[key].select(outcomes.numbers) == outcomes, "a committed outcome was lost or changed"
    _nothing_was_scored_twice(database, posted, final)
    database.dispose()
    service.down()
    until(lambda: not service.processes(), "no process is left after a drain", 15)


def _nothing_was_scored_twice(database: Database, job_id: str, final: dict[tuple[str, str], Outcomes]) -> None:
    with database.reading() as session:
        found = trials.of_job(session, job_id)
        row = session.execute(select(tables.jobs).where(tables.jobs.c.id == job_id)).one()
        writes = {(r.recipe_digest, r.fingerprint): r.writes for r in session.execute(select(tables.outcomes))}
        sides = {
            row.fingerprints[task]: set(tasks.get(session, task, content).side("search"))
            for task, content in row.contents.items()
        }
        for kept in session.execute(select(tables.outcomes)):
            assert kept.writes == len(bits(bytes(kept.presence)))
    assert all(trial.state.final and (trial.told or trial.origin == "parent") for trial in found)
    assert sum(trial.state is TrialState.SCORED for trial in found) >= 5
    # Items are counted in the transaction that commits them: a doubled block would show here.
    searched = sum(len(sides[fingerprint] & set(o.numbers)) for (_, fingerprint), o in final.items())
    assert row.items_scored == searched
    assert sum(writes.values()) == sum(len(outcomes) for outcomes in final.values())
