"""A device worker's side of the runner: start it, ring it, and end it when it hangs or dies.

The Celery process never imports torch. What a crash, an out-of-memory kill or a hung kernel takes down is the runner's
process group, and the device memory with it; the steps it held go back on the queue at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
from typing import Any, cast

from core.errors import TrialTimeoutError
from core.settings import Settings
from store import steps
from workers.failures import settle
from workers.lifetime import process_owner
from workers.processes import Process
from workers.stopping import stretch

log = logging.getLogger(__name__)

_EXIT_SECONDS = 5.0


class RunnerProcess:
    """One runner subprocess, started on first use and again after its death.

    Args:
        settings: of the worker (the step time limit).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self.owner = ""
        self.timed_out = False

    def run_one(self) -> dict[str, Any] | None:
        """Have the runner run one step: its answer, or None if it died or was ended for taking too long.

        `timed_out` says afterwards which of the two it was.
        """
        self.timed_out = False
        process = self._alive()
        try:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.end()
            return None
        answer = self._read_line(process, self._settings.step_timeout_seconds)
        if answer is None:
            self.end()
        return answer

    def end(self) -> None:
        """End the runner and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_EXIT_SECONDS)

    def _alive(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            # Claims carry this worker's name: when its runner dies it lives on and gives them back.
            self.owner = process_owner()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.runner", "--owner", self.owner],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                # Threads that spin while they wait starve one another wherever cores are shared.
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )
        return self._process

    def _read_line(self, process: subprocess.Popen[str], limit: float) -> dict[str, Any] | None:
        """The next answer; None at end of file or when the limit has passed."""
        with selectors.DefaultSelector() as selector:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                log.error("a step took longer than %s s: its runner is ended", limit)
                self.timed_out = True
                return None
        line = process.stdout.readline()
        return cast("dict[str, Any]", json.loads(line)) if line.endswith("\n") else None


_runners: dict[int, RunnerProcess] = {}


def drive(process: Process, queue: str) -> None:
    """Let the runner work for a stretch; the steps of a runner that died are released at once."""
    runner = _runners.setdefault(os.getpid(), RunnerProcess(process.settings))
    for _ in stretch():
        answer = runner.run_one()
        if answer is None:
            _after_death(process, runner)
        elif not answer["ran"]:
            return
    with process.database.transaction() as session:
        session.ring(queue, "stretch", "again")


def _after_death(process: Process, runner: RunnerProcess) -> None:
    """A step that took too long failed by its own doing; any other death is nobody's fault and costs a restart."""
    with process.database.reading() as session:
        held = steps.held_by(session, runner.owner)
    if runner.timed_out:
        limit = process.settings.step_timeout_seconds
        error = TrialTimeoutError(
            f"a step may run {limit:g} s, but this one ran longer: raise HUARIZO_STEP_TIMEOUT_SECONDS"
        )
        for step in held:
            settle(process.database, process.settings, step, error)
        return
    with process.database.transaction() as session:
        released = steps.release(session, runner.owner)
    log.error("the runner died; %d of its steps are queued again", released)
