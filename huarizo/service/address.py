"""Which service runs over a data folder, and where it answers.

Whoever runs `huarizo up` holds an advisory lock on `up.lock`, which the kernel drops when it dies, and writes
`up.json`, which stays when it ends: the next one prefers its port, so that an open dashboard finds it again. Both
files are readable by their user alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import ConflictError, ServiceUnavailableError
from core.settings import Settings
from huarizo.embedded import connection
from huarizo.embedded.connection import write_private
from huarizo.embedded.places import data_home

LOCK, STATE = "up.lock", "up.json"
# A reader takes the lock for an instant to see whether it is free: a starter must outwait that.
LOCK_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Address:
    """A running service: where it answers, its process, and whether it has come up."""

    url: str
    pid: int
    ready: bool = False


def running(home: Path) -> Address | None:
    """The service over a data folder, or None where none runs or another user's does."""
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return last(home)
    finally:
        os.close(descriptor)
    return None


def last(home: Path) -> Address | None:
    """What the latest service over a data folder said of itself, whether or not it still runs."""
    try:
        return Address(**json.loads((home / STATE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(home: Path, address: Address) -> None:
    """Say where the service answers."""
    write_private(home / STATE, json.dumps(asdict(address)))


def api_url(settings: Settings) -> str:
    """Where commands find the API: HUARIZO_API_URL, else the service of this checkout, else the default port."""
    if os.environ.get("HUARIZO_API_URL"):
        return settings.api_url
    here = running(data_home())
    return here.url if here is not None else settings.api_url


def server_urls(settings: Settings) -> tuple[str, str | None]:
    """Database and broker: the configured ones, else those of the `huarizo up` that runs over this data folder.

    Raises:
        ServiceUnavailableError: no database is known.
    """
    embedded = None
    if settings.database_url is None or settings.broker_url is None:
        embedded = connection.running(data_home())
    database_url = settings.database_url or (embedded.database_url if embedded else None)
    if database_url is None:
        raise ServiceUnavailableError(
            "this needs a database: set HUARIZO_DATABASE_URL, or start `huarizo up`, which brings its own"
        )
    return database_url, settings.broker_url or (embedded.broker_url if embedded else None)


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the folder for one service.

    Raises:
        ConflictError: another service runs over it; the message says where it answers.
    """
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, home)
        (home / STATE).unlink(missing_ok=True)  # what a former service said; it was read before, see `last`
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, home: Path) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _occupied(home) from None
        time.sleep(0.05)


def _occupied(home: Path) -> ConflictError:
    there = last(home)
    who = f"process {there.pid} and answers at {there.url}" if there else "a process that is still starting"
    return ConflictError(
        f"one service per data folder: {str(home)!r} is run by {who}. Use that one, stop it first, or set "
        "HUARIZO_HOME to another folder"
    )
