"""How a pool child learns that its worker is draining, and how it ends its worker: both known before the fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

#: Set by the main process when a warm shutdown begins.
DRAINING = multiprocessing.get_context("fork").Event()

#: The main process: this module is imported before the fork. (Without a pool, the main process is this one.)
_MAIN = os.getpid()

#: A child keeps working through the backlog for so long before it lets Celery take the next message.
STRETCH_SECONDS = 10.0


def stretch() -> Iterator[None]:
    """Turns of work: at least one, until the stretch is over or the worker drains."""
    until = time.monotonic() + STRETCH_SECONDS
    yield
    while time.monotonic() < until and not DRAINING.is_set():
        yield


def end_worker() -> None:
    """Ask the worker's main process to end in order; whoever keeps it alive decides whether to start it again."""
    os.kill(_MAIN, signal.SIGTERM)
