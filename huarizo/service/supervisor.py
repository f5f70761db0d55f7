"""Keep a service's processes alive, and end them in order.

A process that dies is started again after a pause that doubles with every death; one that dies too often is given up.
The service fails when a role has no process left: no API, no control worker, no device.

Every process leads a group of its own, is tied to this process by `lifeline` (so a SIGKILL here leaves nothing
behind) and writes to its own log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from core.errors import ServiceUnavailableError
from huarizo.embedded import lifeline
from huarizo.service.commands import Command
from huarizo.service.places import CODE

WATCH_SECONDS = 0.2
GRACE_SECONDS = 2.0
KEPT_LOGS = 3
TAIL_LINES = 8


@dataclass(frozen=True)
class RestartPolicy:
    """More than `deaths` in `window` seconds are too many; pauses double from `first` to `longest` seconds."""

    deaths: int = 5
    window: float = 60.0
    first: float = 0.5
    longest: float = 10.0

    def pause(self, recent: int) -> float:
        """Seconds to wait after the `recent`-th death of late."""
        return float(min(self.first * 2 ** max(recent - 1, 0), self.longest))


class Child:
    """One process, its log and its record of deaths."""

    def __init__(self, command: Command, log: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self.log = log
        self.deaths: deque[float] = deque()
        self.given_up = False
        self.start_at = 0.0
        self._environment = {**environment, **command.environment}
        self._process: subprocess.Popen[Any] | None = None

    @property
    def pid(self) -> int:
        """The process number of now; 0 while it does not run."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process."""
        with open_log(self.log) as log:
            self._process = lifeline.popen(
                self.command.argv,
                env=self._environment,
                cwd=CODE,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                death_signal=signal.SIGTERM,
                means="watchdog",  # ends the whole group, not only its leader
                grace=GRACE_SECONDS,
            )

    def ended(self) -> int | None:
        """The exit status if the process ended since it was last asked about, else None; what it left is ended too."""
        if self._process is None or self._process.poll() is None:
            return None
        status = int(self._process.returncode)
        self.kill_group()
        self._process = None
        return status

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """Kill the process and all of its group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def tail(self) -> str:
        """The last lines of the log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        except OSError:
            return ""


class Supervisor:
    """Starts, watches and stops the processes of one service.

    Args:
        commands: what to run; started in this order, and all but the API are stopped before the API.
        logs: folder of the logs, which must exist.
        environment: variables of every process.
        report: told in one line what happens.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        *,
        logs: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None] = lambda _line: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self.children = [Child(command, logs / f"{command.name}.log", environment) for command in commands]
        self._report = report
        self._policy = policy or RestartPolicy()

    def start(self) -> None:
        """Start every process with a fresh log."""
        for child in self.children:
            rotate(child.log)
            child.start()

    def watch(self, until: threading.Event, *, check: Callable[[], None] = lambda: None) -> None:
        """Keep the processes alive until the event is set.

        Args:
            until: ends the watch.
            check: called in every round; what it raises ends the watch.

        Raises:
            ServiceUnavailableError: see `tend`.
        """
        while not until.wait(WATCH_SECONDS):
            check()
            self.tend()

    def tend(self) -> None:
        """One round: notice deaths, start again what is due.

        Raises:
            ServiceUnavailableError: a role has no process left; the message ends with the last lines of its log.
        """
        now = time.monotonic()
        for child in self.children:
            status = child.ended()
            if status is not None:
                self._mourn(child, status, now)
            if child.pid == 0 and not child.given_up and now >= child.start_at:
                child.start()

    def stop(self, hurry: threading.Event | None = None) -> None:
        """End everything: workers first, so that the API shows the drain to its end; then the API.

        Args:
            hurry: once set, nothing is waited for any more.
        """
        hurry = hurry or threading.Event()
        for last in (False, True):
            stop_all([child for child in self.children if (child.command.role == "api") == last], hurry)

    def _mourn(self, child: Child, status: int, now: float) -> None:
        policy, deaths = self._policy, child.deaths
        deaths.append(now)
        while deaths and now - deaths[0] > policy.window:
            deaths.popleft()
        name = child.command.name
        if len(deaths) > policy.deaths:
            child.given_up = True
            self._report(f"{name} died {len(deaths)} times in {policy.window:g} s and is given up, see {child.log}")
            self._fail_if_last(child, status)
            return
        pause = policy.pause(len(deaths))
        child.start_at = now + pause
        self._report(f"{name} ended with status {status}; starting it again in {pause:g} s, see {child.log}")

    def _fail_if_last(self, child: Child, status: int) -> None:
        role = child.command.role
        if all(other.given_up for other in self.children if other.command.role == role):
            raise ServiceUnavailableError(
                f"{child.command.name!r} may die {self._policy.deaths!r} times in {self._policy.window:g} s; it died "
                f"once more (status {status!r}). Mend what its log names, then start again: "
                f"{str(child.log)!r} ends with\n{child.tail()}"
            )


def stop_all(children: Sequence[Child], hurry: threading.Event) -> None:
    """End processes side by side, each with its own sequence of signals, at last by SIGKILL to the group."""
    plans = {child: deque(child.command.stop_signals) for child in children if child.pid}
    deadlines = dict.fromkeys(plans, 0.0)
    while plans:
        now = time.monotonic()
        for child in [child for child in plans if child.ended() is not None]:
            del plans[child]
        for child, plan in plans.items():
            if hurry.is_set() or (now >= deadlines[child] and not plan):
                child.kill_group()
            elif now >= deadlines[child]:
                number, seconds = plan.popleft()
                deadlines[child] = now + seconds
                child.send(number)
        time.sleep(0.05)


def open_log(path: Path) -> IO[bytes]:
    """A log to append to, readable by its user alone."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def rotate(path: Path) -> None:
    """Put an earlier run's log aside: `x.log` becomes `x.log.1`, and so on up to KEPT_LOGS."""
    if not path.exists() or path.stat().st_size == 0:
        return
    for number in range(KEPT_LOGS, 0, -1):
        older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
