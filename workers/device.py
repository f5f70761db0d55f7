"""A device worker's side of the runner: start it, ring it, and end it when it hangs or dies.

The Celery process never imports torch. What a crash, an out-of-memory kill or a hung kernel takes down is the runner's
process group, and the device memory with it; the steps it held go back on the queue at once. A runner that cannot even
start is tried again a few times, ever more slowly; then the worker ends, so that whoever keeps it alive learns of it.
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
from workers.stopping import DRAINING, end_worker, stretch

log = logging.getLogger(__name__)

#: The longest time a runner may take to load its libraries and open its device: minutes where both come over a network.
#: Only then does the limit of a step run.
BOOT_SECONDS = 600.0
#: So many failed starts in a row end the worker. The pause after the first is the first pause; it doubles with each.
MAX_FAILED_STARTS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5, 1.0, 30.0

_EXIT_SECONDS = 5.0


class RunnerProcess:
    """One runner subprocess, started on first use and again after its death.

    Args:
        settings: of the worker (the step time limit).

    Attributes:
        owner: the name under which the runner claims.
        timed_out: whether the last step was ended for taking too long.
        failed_starts: how often in a row it ended before it was ready.
        start_error: why it did so last.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._ready = False
        self.owner = ""
        self.timed_out = False
        self.failed_starts = 0
        self.start_error = ""

    def run_one(self) -> dict[str, Any] | None:
        """Have the runner run one step: its answer, or None if it did not start, died, or was ended for its time.

        `failed_starts` and `timed_out` say afterwards which of them it was.
        """
        self.timed_out = False
        process = self._alive()
        if not self._ready and not self._boot(process):
            return None
        try:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            answer = self._read_line(process, self._settings.step_timeout_seconds)
        except TimeoutError:
            log.error("a step took longer than %s s: its runner is ended", self._settings.step_timeout_seconds)
            self.timed_out = True
            answer = None
        except BrokenPipeError:
            answer = None
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
            self._ready = False
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

    def _boot(self, process: subprocess.Popen[str]) -> bool:
        """Wait until the runner is ready; one that is not is ended."""
        try:
            answer = self._read_line(process, BOOT_SECONDS)
        except TimeoutError:
            answer = {"error": f"it was not ready after {BOOT_SECONDS:g} s"}
        self._ready = bool(answer and answer.get("ready"))
        if self._ready:
            self.failed_starts = 0
            return True
        if answer is None:  # Its output may end a moment before it does.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_SECONDS)
        self.end()
        self.failed_starts += 1
        status = f"it ended with status {process.returncode}; its last words stand above"
        self.start_error = str((answer or {}).get("error", status))
        return False

    def _read_line(self, process: subprocess.Popen[str], limit: float) -> dict[str, Any] | None:
        """The next answer; None at end of file.

        Raises:
            TimeoutError: the limit has passed.
        """
        with selectors.DefaultSelector() as selector:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                raise TimeoutError
        line = process.stdout.readline()
        return cast("dict[str, Any]", json.loads(line)) if line.endswith("\n") else None


_runners: dict[int, RunnerProcess] = {}


def drive(process: Process, queue: str) -> None:
    """Let the runner work for a stretch; the steps of a runner that died are released at once."""
    runner = _runners.setdefault(os.getpid(), RunnerProcess(process.settings))
    for _ in stretch():
        answer = runner.run_one()
        if answer is None and runner.failed_starts:
            if not _after_failed_start(runner):
                return
        elif answer is None:
            _after_death(process, runner)
        elif not answer["ran"]:
            return
    with process.database.transaction() as session:
        session.ring(queue, "stretch", "again")


def _after_failed_start(runner: RunnerProcess) -> bool:
    """Pause before the next try; whether there is to be one. A runner that never was ready has claimed nothing."""
    failed = runner.failed_starts
    if failed >= MAX_FAILED_STARTS:
        log.error("the runner could not start %d times in a row (%s): this worker ends", failed, runner.start_error)
        end_worker()
        return False
    pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (failed - 1), LONGEST_PAUSE_SECONDS)
    log.error("the runner could not start (%s): trying again in %g s", runner.start_error, pause)
    DRAINING.wait(pause)
    return True


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
