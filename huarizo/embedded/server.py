"""One server process: start it on a free port, wait until it answers, stop it, clear away what an earlier one left."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

from core.errors import EmbeddedServerError
from huarizo.embedded import lifeline
from huarizo.embedded.account import Account
from huarizo.embedded.connection import write_private
from huarizo.embedded.ports import hold_port, is_free

PORT_ATTEMPTS = 5
LOG_BYTES = 8 << 20
LOG_TAIL_BYTES = 2000
PROBE_SECONDS = 0.03


class NotReadyError(Exception):
    """The server does not answer yet; ask again."""


class ServerProcess(ABC):
    """A server over `folder`: its own files in `folder/data`, ours (password, log) beside them.

    The data folder belongs to `account`; what surrounds it belongs to this process's user, so that a server taken
    over by somebody cannot lead a supervisor that is root astray.
    """

    name: ClassVar[str]
    process_names: ClassVar[tuple[str, ...]]
    stop_signals: ClassVar[Sequence[tuple[signal.Signals, float]]]
    """What to send in turn, with the seconds each is given; the first also goes out when the supervisor dies."""

    def __init__(self, folder: Path, account: Account, *, means: lifeline.Means | None = None) -> None:
        self.folder = folder
        self.account = account
        self.data = folder / "data"
        self.unfinished = folder / "data.part"
        self.port = 0
        self._means = means
        self._process: subprocess.Popen[Any] | None = None
        self._abandoned = threading.Event()

    @abstractmethod
    def prepare(self) -> None:
        """Create what the first start needs; without effect later."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line for the present port."""

    @abstractmethod
    def probe(self) -> None:
        """Return if the server answers; raise NotReadyError if it may soon, EmbeddedServerError if it never will."""

    @property
    def pid(self) -> int:
        """The server's process number; 0 before the first start."""
        return 0 if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout: float) -> bool:
        """Whether the process ended within `timeout` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def start(self, preferred_port: int | None, ready_seconds: float) -> None:
        """Start on `preferred_port` if it is free, else on another, and return once the server answers.

        Raises:
            EmbeddedServerError: it ended, or did not answer in time; the message ends with its last log lines.
        """
        self.clear_remains()
        self._rotate_log()
        self.prepare()
        for attempt in range(PORT_ATTEMPTS):
            with hold_port(preferred_port if attempt == 0 else None) as held:
                self.port = int(held.getsockname()[1])
            if self._launch(ready_seconds):
                return
            if is_free(self.port):  # then it was not a stolen port that ended it
                break
        raise self._ended()

    def restart(self, ready_seconds: float) -> None:
        """Start again on the same port, so that every address handed out stays true.

        Raises:
            EmbeddedServerError: as `start`.
        """
        self.clear_remains()
        try:
            if not self._launch(ready_seconds):
                raise self._ended()
        except EmbeddedServerError:
            self.stop()  # one that lives but does not answer would never be started again
            raise

    def abandon(self) -> None:
        """Make a `start` or `restart` under way in another thread end with an error soon."""
        self._abandoned.set()

    def stop(self) -> None:
        """End the process, politely first; without effect if it does not run."""
        for number, seconds in self.stop_signals:
            if self._process is None or not self.alive():
                break
            self._process.send_signal(number)
            self.wait(seconds)
        self.clear_remains()

    def clear_remains(self) -> None:
        """End processes of an earlier life that still use the data: an orphan on its way out, a backend without head.

        The caller holds the folder's lock, so whoever else works here has lost its supervisor.
        """
        remains = [process for process in psutil.process_iter() if self._lives_here(process)]
        for number, seconds in self.stop_signals:
            for process in remains:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            _, remains = psutil.wait_procs(remains, timeout=seconds)
            if not remains:
                return

    def _lives_here(self, process: psutil.Process) -> bool:
        try:
            homes = (str(self.data.resolve()), str(self.unfinished.resolve()))
            return process.name() in self.process_names and process.cwd() in homes
        except (psutil.Error, OSError):
            return False

    def password(self) -> str:
        """The server's password, made on first use and kept in a 0600 file."""
        file = self.folder / "password"
        if not file.exists():
            write_private(file, secrets.token_urlsafe(24))
        return file.read_text().strip()

    def spawn(self, argv: Sequence[str | Path]) -> subprocess.Popen[Any]:
        """Run a program as the account, in the data folder, its output going to the log, tied to this process."""
        with self._open_log() as log:
            return lifeline.popen(
                argv,
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                death_signal=self.stop_signals[0][0],
                user=self.account.uid,
                group=self.account.gid,
                means=self._means,
            )

    def _launch(self, ready_seconds: float) -> bool:
        """Whether the server answered; False if it ended first."""
        self._process = self.spawn(self.command())
        deadline = time.monotonic() + ready_seconds
        while not self.wait(PROBE_SECONDS):
            if self._abandoned.is_set():
                raise EmbeddedServerError(f"{self.name} was told to stop before it answered; start it again")
            try:
                self.probe()
                return True
            except NotReadyError as error:
                if time.monotonic() > deadline and self.alive():
                    raise EmbeddedServerError(
                        f"{self.name} must answer within {ready_seconds!r} s of its start; last answer: {error}. "
                        f"{self._log_tail()}"
                    ) from error
        return False

    def _ended(self) -> EmbeddedServerError:
        status = None if self._process is None else self._process.returncode
        return EmbeddedServerError(f"{self.name} ended with status {status!r} before it answered. {self._log_tail()}")

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    def _open_log(self) -> Any:
        return open(self._log_file, "ab", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600))

    def _rotate_log(self) -> None:
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))

    def _log_tail(self) -> str:
        try:
            text = self._log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except FileNotFoundError:
            text = ""
        return f"See {str(self._log_file)!r}, which ends:\n{text}"


def _environment() -> dict[str, str]:
    """Little, as every user's settings (PG*, LANG) change what the servers do."""
    # The library path is for the interpreter in between: on clusters Python itself may hang on it.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
