"""How other processes find the servers of a data folder, and how only one supervisor at a time owns it.

The owner holds an advisory lock (flock) on `lock`, which the kernel drops when it dies, and writes `servers.json`,
readable by its user alone since the addresses carry passwords.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from core.errors import EmbeddedServerError

LOCK_NAME = "lock"
STATE_NAME = "servers.json"
# A reader takes the lock for an instant to see whether it is free: a starter must outwait that.
LOCK_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class ConnectionInfo:
    """Addresses, process numbers and ports of running servers. `repr` leaves the passwords out."""

    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    supervisor_pid: int
    postgres_pid: int
    postgres_port: int
    broker_pid: int
    broker_port: int
    socket_folder: str


def running(data_dir: Path) -> ConnectionInfo | None:
    """The servers a live supervisor runs on this folder, or None; None also while they are still starting.

    Raises:
        EmbeddedServerError: the folder is closed to this user.
    """
    try:
        with _open_lock(data_dir) as descriptor:
            if _try_lock(descriptor, fcntl.LOCK_SH):
                return None
            return last_state(data_dir)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise EmbeddedServerError(
            f"the servers of {str(data_dir)!r} belong to another user; uid {os.geteuid()!r} cannot read "
            f"{error.filename!r}. Ask as the user that started them"
        ) from error


def last_state(data_dir: Path) -> ConnectionInfo | None:
    """What `servers.json` says, whether or not it is still true."""
    try:
        return ConnectionInfo(**json.loads((data_dir / STATE_NAME).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_state(data_dir: Path, info: ConnectionInfo) -> None:
    """Replace `servers.json` at one stroke, mode 0600."""
    write_private(data_dir / STATE_NAME, json.dumps(asdict(info), indent=1))


def forget_state(data_dir: Path) -> None:
    """Remove `servers.json`."""
    (data_dir / STATE_NAME).unlink(missing_ok=True)


def write_private(path: Path, text: str, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that only its owner (default: we) can read; readers see the old text or the new, never a part."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if owner is not None:
            os.fchown(descriptor, *owner)
        file.write(text)
    unfinished.rename(path)


class FolderLock:
    """The right to run servers over one data folder, held until `release` or the end of the process."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            EmbeddedServerError: another process has it; the message names it and its ports.
        """
        descriptor = os.open(self._data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise _occupied(self._data_dir, holder)
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without effect where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _occupied(data_dir: Path, holder: str) -> EmbeddedServerError:
    state = last_state(data_dir)
    ports = f", ports {state.postgres_port} and {state.broker_port}" if state is not None else ", still starting"
    return EmbeddedServerError(
        f"one set of servers per data folder; {str(data_dir)!r} is run by process {holder or 'unknown'}{ports}. "
        "Use those, stop that process first, or set HUARIZO_HOME to another folder"
    )


@contextlib.contextmanager
def _open_lock(data_dir: Path) -> Iterator[int]:
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
