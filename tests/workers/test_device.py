"""A real runner process, driven as a worker drives it; where its work does not matter, the work is a stand-in's."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from sqlalchemy import select

from core.outcomes import bits
from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState, TrialState
from store import steps, trials
from store import tables as rows
from tests.store.makers import claim, new_job, new_step, new_trial
from tests.workers.conftest import SMALL
from workers import device, stopping
from workers.device import RunnerProcess, drive
from workers.processes import Process

#: Modules of the runner are read from this folder, where it has one of that name.
CUSTOM = """
import importlib.abc, importlib.util, pathlib, sys

class Substitute(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        file = pathlib.Path(__file__).with_name(name + ".py")
        return importlib.util.spec_from_file_location(name, file) if file.is_file() else None

sys.meta_path.insert(0, Substitute())
"""
BENCH = """
from core.records import Device
class Bench:
    kind = Device.CPU
    def __init__(self, settings, *, owner):
        self.settings, self.owner = settings, owner
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Replaces modules of the runner by source text."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(CUSTOM)

    def put(work, bench=BENCH):
        (tmp_path / "workers.runner.work.py").write_text(textwrap.dedent(work))
        if bench is not None:
            (tmp_path / "workers.runner.bench.py").write_text(bench)

    return put


@pytest.fixture
def runner():
    made = RunnerProcess(Settings(step_timeout_seconds=60))
    yield made
    made.end()


@pytest.fixture
def worker(database, monkeypatch):
    """A device worker's child over an empty database; its runner ends with the test."""
    monkeypatch.setenv("HUARIZO_DATABASE_URL", database.url)
    monkeypatch.setattr(device, "_runners", {})
    process = Process(Settings(database_url=database.url, broker_url=None))
    yield process
    process.database.dispose()
    for made in device._runners.values():
        made.end()


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_runner_answers_step_by_step(stand_in, runner):
    stand_in("""
        import os
        turns = iter([True, True, False])
        def run_next(bench):
            return {"ran": next(turns), "pid": os.getpid(), "owner": bench.owner}
    """)
    answers = [runner.run_one() for _ in range(3)]
    assert [answer["ran"] for answer in answers] == [True, True, False]
    assert len({answer["pid"] for answer in answers}) == 1
    assert {answer["owner"] for answer in answers} == {runner.owner}


def test_what_libraries_print_is_no_answer(stand_in, runner):
    stand_in("""
        import os, subprocess, sys
        print('{"ran": false}', flush=True)
        os.write(1, b"loading 100%\\n")
        def run_next(bench):
            print("a line of a library", flush=True)
            sys.__stdout__.write("half a line")
            subprocess.run(["echo", "from a child"])
            os.write(1, b'{"ran": false}\\n')
            return {"ran": True}
    """)
    assert [runner.run_one() for _ in range(3)] == [{"ran": True}] * 3


def test_a_runner_that_ended_between_two_steps_is_started_again(stand_in, runner):
    stand_in("""
        import os
        def run_next(bench):
            return {"ran": True, "pid": os.getpid()}
    """)
    first, owner = runner.run_one(), runner.owner
    runner._process.kill()
    runner._process.wait()
    second = runner.run_one()
    assert second["pid"] != first["pid"]
    assert runner.owner == owner


def test_the_time_of_a_step_does_not_begin_before_the_runner_is_ready(stand_in):
    stand_in("""
        import time
        time.sleep(4)
        def run_next(bench):
            return {"ran": True}
    """)
    runner = RunnerProcess(Settings(step_timeout_seconds=2))
    assert runner.run_one() == {"ran": True}
    runner.end()


def test_a_runner_that_is_not_ready_in_its_time_is_ended_and_no_step_is_blamed(stand_in, runner, monkeypatch):
    stand_in("""
        import time
        time.sleep(300)
    """)
    monkeypatch.setattr(device, "BOOT_SECONDS", 1.0)
    process = runner._alive()
    assert runner.run_one() is None
    assert process.poll() is not None
    assert (runner.timed_out, runner.failed_starts) == (False, 1)
    assert "not ready after 1 s" in runner.start_error


@pytest.mark.parametrize(
    ("loading", "why"),
    [("raise ImportError('libcudart is missing')", "ImportError: libcudart is missing"), ("os._exit(7)", "status 7")],
)
def test_why_a_runner_could_not_start_is_known(stand_in, runner, loading, why):
    stand_in(f"import os\n{loading}")
    assert runner.run_one() is None
    assert why in runner.start_error


@pytest.mark.skipif(torch.cuda.is_available(), reason="its device works")
def test_a_runner_whose_device_does_not_work_never_takes_a_step(worker, runner, monkeypatch):
    monkeypatch.setenv("HUARIZO_DEVICE", "cuda")
    with worker.database.transaction() as session:
        step = new_step(session, device=Device.CUDA)
    assert runner.run_one() is None
    assert runner.failed_starts == 1 and "CUDA" in runner.start_error
    with worker.database.reading() as session:
        assert steps.get(session, step.id) == step


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between starts, which take no time."""
    seen = []
    monkeypatch.setattr(device, "DRAINING", SimpleNamespace(wait=seen.append))
    monkeypatch.setattr(stopping, "STRETCH_SECONDS", 300.0)
    return seen


def test_a_runner_that_cannot_start_is_tried_ever_more_slowly_and_then_the_worker_ends(
    stand_in, worker, pauses, monkeypatch, caplog
):
    stand_in("raise ImportError('libcudart is missing')")
    ended = []
    monkeypatch.setattr(device, "end_worker", lambda: ended.append(True))
    drive(worker, "cpu")
    assert ended == [True] and pauses == [1, 2, 4, 8]
    last = caplog.records[-1].getMessage()
    assert "5 times in a row" in last and "libcudart is missing" in last
    assert "queued again" not in caplog.text


def test_a_runner_that_starts_at_last_begins_anew_with_its_pauses(stand_in, worker, pauses, monkeypatch):
    stand_in("""
        import os, pathlib
        place = pathlib.Path(os.environ["PLACE"], "starts")
        starts = int(place.read_text()) + 1 if place.exists() else 1
        place.write_text(str(starts))
        if starts % 3:
            raise ImportError("not yet")
        def run_next(bench):
            return {"ran": False} if starts > 3 else os._exit(1)
    """)
    drive(worker, "cpu")
    assert pauses == [1, 2, 1, 2]


def test_a_step_that_hangs_ends_the_runner_with_everything_it_started(stand_in, tmp_path):
    stand_in("""
        import json, os, pathlib, subprocess, time
        def run_next(bench):
            child = subprocess.Popen(["sleep", "300"])
            pathlib.Path(os.environ["PLACE"], "pids").write_text(json.dumps([os.getpid(), child.pid]))
            time.sleep(300)
    """)
    runner = RunnerProcess(Settings(step_timeout_seconds=3))
    assert runner.run_one() is None
    pids = json.loads((tmp_path / "pids").read_text())
    until(lambda: all(gone(pid) for pid in pids))
    runner.end()


@pytest.mark.parametrize("moment", ["while it loads", "in a step"])
def test_a_runner_ends_with_its_worker(stand_in, tmp_path, moment):
    wait = """
        import os, pathlib, time
        def wait():
            place = pathlib.Path(os.environ["PLACE"], "pid")
            place.with_suffix(".part").write_text(str(os.getpid()))
            place.with_suffix(".part").rename(place)
            time.sleep(300)
    """
    stand_in(wait + ("\n        wait()" if moment == "while it loads" else "\n        def run_next(bench): wait()"))
    script = "from core.settings import Settings; from workers.device import RunnerProcess; RunnerProcess(Settings()).run_one()"
    worker = subprocess.Popen([sys.executable, "-c", script])
    until((tmp_path / "pid").exists)
    worker.kill()
    worker.wait()
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid), seconds=20)


def test_a_worker_goes_on_until_there_is_nothing_to_do(stand_in, worker, tmp_path):
    stand_in("""
        import os, pathlib
        def run_next(bench):
            place = pathlib.Path(os.environ["PLACE"], "turns")
            turns = int(place.read_text()) if place.exists() else 0
            place.write_text(str(turns + 1))
            return {"ran": turns < 3}
    """)
    drive(worker, "cpu")
    assert (tmp_path / "turns").read_text() == "4"


def test_a_worker_rings_for_its_queue_when_its_stretch_is_over(stand_in, worker, monkeypatch):
    stand_in("""
        def run_next(bench):
            return {"ran": True}
    """)
    rung = []

    class Recorder:
        def ring(self, queue, kind, id):
            rung.append(queue)

        def close(self):
            pass

    worker.database.bell = Recorder()
    monkeypatch.setattr(stopping, "STRETCH_SECONDS", 0.0)
    drive(worker, "cuda")
    assert rung == ["cuda"]


def test_a_step_whose_runner_died_is_queued_again_at_once(stand_in, worker):
    stand_in("""
        import os, pathlib, signal
        from core.records import Device
        from store import steps
        from store.session import Database
        def run_next(bench):
            with Database(bench.settings.database_url).transaction() as s:
                step = steps.claim(s, owner=bench.owner, devices=(Device.CPU,), lease_seconds=86400)
            if step.infra_restarts == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"ran": False}
    """)
    with worker.database.transaction() as s:
        step = new_step(s)
    drive(worker, "cpu")
    with worker.database.reading() as s:
        held = steps.get(s, step.id)
    # Taken back from the dead one and held by the next, long before any lease ran out.
    assert (held.state, held.infra_restarts, held.fence) == (StepState.RUNNING, 1, 2)


def test_a_runner_killed_in_the_midst_of_scoring_loses_nothing_and_scores_nothing_twice(
    service, stand_in, worker, tmp_path, monkeypatch
):
    # The real runner, with blocks of four documents; a line per document is written once its block is committed.
    stand_in(
        """
        import os, pathlib, time
        exec(compile(pathlib.Path("workers/runner/work.py").read_text(), "workers/runner/work.py", "exec"))
        from evaluation.scorer import Scorer
        score = Scorer.score
        def watched(self, model, task, numbers, *, on_block, **options):
            def keep(block):
                on_block(block)
                with open(os.environ["PLACE"] + "/scored", "a") as file:
                    file.writelines(f"{os.getpid()} {number}\\n" for number in block.numbers)
                time.sleep(0.3)
            return score(self, model, task, numbers, on_block=keep, **options | {"block_items": 4})
        Scorer.score = watched
        """,
        bench=None,
    )
    settings, log = service.settings, tmp_path / "scored"
    for name in ("model_roots", "task_folders"):
        monkeypatch.setenv(f"HUARIZO_{name.upper()}", os.pathsep.join(map(str, getattr(settings, name))))
    monkeypatch.setenv("HUARIZO_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("HUARIZO_DEVICE", "cpu")
    monkeypatch.setenv("HUARIZO_THREADS", "1")
    monkeypatch.setattr(stopping, "STRETCH_SECONDS", 300.0)
    job = service.post(**SMALL | {"racing": {"rungs": [32]}})
    step = service.until(StepKind.RUN_TRIAL)
    with service.database.transaction() as s:
        steps.release(s, "runner")
    child = threading.Thread(target=drive, args=(Process(settings), "cpu"))
    child.start()
    until(lambda: log.exists() and len(log.read_text().splitlines()) >= 8, seconds=300)
    (held,) = device._runners.values()
    killed = held._process.pid
    os.kill(killed, signal.SIGKILL)
    child.join(300)
    assert not child.is_alive()
    lines = [line.split() for line in log.read_text().splitlines()]
    assert {int(pid) for pid, _ in lines} - {killed}
    with service.database.reading() as s:
        taken = steps.get(s, step.id)
        kept = {row.recipe_digest: bits(bytes(row.presence)) for row in s.execute(select(rows.outcomes))}
    # Once when it was handed over from here, once when its runner was killed.
    assert (taken.state, taken.attempts, taken.infra_restarts) == (StepState.DONE, 0, 2)
    trial = next(t for t in service.trials(job.id) if t.id == step.trial_id)
    assert (trial.state, trial.scored_items) == (TrialState.WAITING, 32)
    both = sorted(int(number) for _, number in lines)
    assert both == sorted(number for numbers in kept.values() for number in numbers)
    assert service.job(job.id).state is JobState.RUNNING
    assert service.job(job.id).items_scored == len(both)


def test_a_candidate_that_takes_too_long_fails_with_a_code_and_is_not_tried_again(stand_in, worker):
    """Trying it again would take as long."""
    stand_in("""
        import time
        def run_next(bench):
            time.sleep(300)
    """)
    with worker.database.transaction() as session:
        job = new_job(session)
        trial = new_trial(session, job.id)
    slow = RunnerProcess(Settings(step_timeout_seconds=4))
    device._runners[os.getpid()] = slow
    slow._alive()
    with worker.database.transaction() as session:
        step = claim(session, owner=slow.owner)
        trials.move(session, trial.id, TrialState.RUNNING)
    assert step.trial_id == trial.id
    stopping.DRAINING.set()
    try:
        drive(worker, "cpu")
    finally:
        stopping.DRAINING.clear()
    with worker.database.reading() as session:
        ended, failed = trials.get(session, trial.id), steps.get(session, step.id)
    assert (ended.state, ended.failure.code) == (TrialState.FAILED, "trial_timeout")
    assert (failed.state, failed.infra_restarts) == (StepState.FAILED, 0)
