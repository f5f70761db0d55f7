"""How a pool child learns that its worker is draining: an event made before the fork, shared by both sides."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

#: Set by the main process when a warm shutdown begins.
DRAINING = multiprocessing.get_context("fork").Event()

#: A child keeps working through the backlog for so long before it lets Celery take the next message.
STRETCH_SECONDS = 10.0


def stretch() -> Iterator[None]:
    """Turns of work: at least one, until the stretch is over or the worker drains."""
    until = time.monotonic() + STRETCH_SECONDS
    yield
    while time.monotonic() < until and not DRAINING.is_set():
        yield
