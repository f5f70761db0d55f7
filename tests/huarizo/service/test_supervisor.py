"""Processes are kept alive, given up when hopeless, ended in order, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from core.errors import ServiceUnavailableError
from huarizo.service.commands import Command, Role
from huarizo.service.supervisor import KEPT_LOGS, RestartPolicy, Supervisor, rotate

REPOSITORY = Path(__file__).parents[3]
QUICK = RestartPolicy(deaths=2, window=60.0, first=0.01, longest=0.02)
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def command(
    name: str, code: str, *, role: Role = "device", stop: Sequence[tuple[signal.Signals, float]] = ()
) -> Command:
    signals = stop or ((signal.SIGTERM, 10.0),)
    return Command(name, role, (sys.executable, "-S", "-c", code), {}, signals)


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def supervisor_of(tmp_path: Path, *commands: Command, said: list[str] | None = None) -> Supervisor:
    report = (said if said is not None else []).append
    return Supervisor(commands, logs=tmp_path, environment=dict(os.environ), report=report, policy=QUICK)


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = supervisor_of(tmp_path, command("device-cpu", SLEEPER), said=said)
    supervisor.start()
    try:
        (child,) = supervisor.children
        first = child.pid
        os.kill(first, signal.SIGKILL)

        def replaced() -> bool:
            supervisor.tend()
            return child.pid not in (0, first)

        assert eventually(replaced)
        assert psutil.pid_exists(child.pid)
        assert "device-cpu ended with status -9" in said[0]
    finally:
        supervisor.stop()
    assert child.pid == 0


def test_a_role_without_processes_fails_the_service_with_the_last_words_of_its_log(tmp_path: Path) -> None:
    supervisor = supervisor_of(
        tmp_path, command("control", "print('no such database'); raise SystemExit(3)", role="control")
    )
    supervisor.start()
    with pytest.raises(ServiceUnavailableError, match="status 3") as caught:
        supervisor.watch(threading.Event())
    assert "no such database" in caught.value.message
    assert str(tmp_path / "control.log") in caught.value.message


def test_one_hopeless_device_of_two_is_given_up_and_the_other_works_on(tmp_path: Path) -> None:
    said: list[str] = []
    commands = (command("device-cuda-0", "raise SystemExit(1)"), command("device-cuda-1", SLEEPER))
    supervisor = supervisor_of(tmp_path, *commands, said=said)
    supervisor.start()
    try:
        hopeless, working = supervisor.children

        def given_up() -> bool:
            supervisor.tend()
            return hopeless.given_up

        assert eventually(given_up)
        supervisor.tend()
        assert working.pid
        assert not working.given_up
        assert "given up" in said[-1]
    finally:
        supervisor.stop()


def test_workers_end_before_the_api_so_that_the_drain_can_be_watched(tmp_path: Path) -> None:
    record = tmp_path / "order"
    told = (
        "import signal, sys, time\n"
        "def bye(*_):\n"
        f"    open({str(record)!r}, 'a').write(sys.argv[1] + ' ')\n"
        "    sys.exit()\n"
        "signal.signal(15, bye)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    commands = [
        Command(name, role, (sys.executable, "-S", "-c", told, name), {}, ((signal.SIGTERM, 10.0),))
        for name, role in (("api", "api"), ("control", "control"), ("device-cpu", "device"))
    ]
    supervisor = supervisor_of(tmp_path, *commands)  # type: ignore[arg-type]
    supervisor.start()
    assert eventually(lambda: all("up" in child.tail() for child in supervisor.children))
    supervisor.stop()
    order = record.read_text().split()
    assert order[-1] == "api"
    assert set(order[:-1]) == {"control", "device-cpu"}


def test_a_process_that_does_not_heed_is_sent_harder_signals(tmp_path: Path) -> None:
    heeds_quit = command("a", STUBBORN, stop=((signal.SIGTERM, 0.2), (signal.SIGQUIT, 10.0)))
    heeds_none = command("b", STUBBORN, stop=((signal.SIGTERM, 0.2),))
    supervisor = supervisor_of(tmp_path, heeds_quit, heeds_none)
    supervisor.start()
    assert eventually(lambda: all("up" in child.tail() for child in supervisor.children))
    pids = [child.pid for child in supervisor.children]
    started = time.monotonic()
    supervisor.stop()
    assert 0.2 <= time.monotonic() - started < 8.0
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_haste_waits_for_nothing(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path, command("a", STUBBORN, stop=((signal.SIGTERM, 600.0),)))
    supervisor.start()
    assert eventually(lambda: "up" in supervisor.children[0].tail())
    hurry = threading.Event()
    threading.Timer(0.3, hurry.set).start()
    started = time.monotonic()
    supervisor.stop(hurry)
    assert time.monotonic() - started < 8.0


def test_what_a_dead_process_leaves_in_its_group_is_ended_before_the_next_start(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "print('left', child.pid, flush=True)\ntime.sleep(600)"
    )
    supervisor = supervisor_of(tmp_path, command("device-cpu", code))
    supervisor.start()
    try:
        (child,) = supervisor.children
        assert eventually(lambda: "left" in child.tail())
        left = int(child.tail().split()[-1])
        os.kill(child.pid, signal.SIGKILL)

        def ended() -> bool:
            supervisor.tend()
            return _gone(left)

        assert eventually(ended)
    finally:
        supervisor.stop()


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    """The children ignore SIGTERM and have children of their own: the hardest case."""
    script = tmp_path / "supervise.py"
    grandchild = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {grandchild!r}])\n"
        "print('pids', child.pid, flush=True)\ntime.sleep(600)"
    )
    script.write_text(
        "import os, sys, threading\nfrom pathlib import Path\n"
        "from huarizo.service.commands import Command\nfrom huarizo.service.supervisor import Supervisor\n"
        f"command = Command('a', 'device', (sys.executable, '-S', '-c', {code!r}))\n"
        f"supervisor = Supervisor([command], logs=Path({str(tmp_path)!r}), environment=dict(os.environ))\n"
        "supervisor.start()\nprint(supervisor.children[0].pid, flush=True)\nsupervisor.watch(threading.Event())\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        child = int(process.stdout.readline())
        log = tmp_path / "a.log"
        assert eventually(lambda: log.exists() and "pids" in log.read_text())
        grandchild_pid = int(log.read_text().split()[-1])
        assert psutil.pid_exists(child)
        assert psutil.pid_exists(grandchild_pid)
        process.kill()
    assert eventually(lambda: _gone(child) and _gone(grandchild_pid))


def test_a_failing_check_ends_the_watch(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path, command("a", SLEEPER))
    supervisor.start()

    def check() -> None:
        raise ServiceUnavailableError("the database is gone")

    try:
        with pytest.raises(ServiceUnavailableError, match="database is gone"):
            supervisor.watch(threading.Event(), check=check)
    finally:
        supervisor.stop()


def test_pauses_double_up_to_the_longest() -> None:
    policy = RestartPolicy(first=0.5, longest=4.0)
    assert [policy.pause(deaths) for deaths in (1, 2, 3, 4, 9)] == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_logs_of_the_last_runs_are_kept_and_older_ones_are_not(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    for run in range(KEPT_LOGS + 2):
        rotate(log)
        log.write_text(f"run {run}")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"api.log": "run 4", "api.log.1": "run 3", "api.log.2": "run 2", "api.log.3": "run 1"}


def test_an_empty_log_is_not_worth_keeping(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.touch()
    rotate(log)
    assert [path.name for path in tmp_path.iterdir()] == ["api.log"]


def test_logs_are_closed_to_other_users(tmp_path: Path) -> None:
    supervisor = supervisor_of(tmp_path, command("a", SLEEPER))
    supervisor.start()
    supervisor.stop()
    assert (tmp_path / "a.log").stat().st_mode & 0o077 == 0


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
