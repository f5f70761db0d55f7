"""Ports on 127.0.0.1 that are free, and stay free until the server is about to take them."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import EmbeddedServerError

# Below every system's ephemeral range: an outgoing connection must not sit on the port of a server that restarts.
LOWEST, HIGHEST = 20_000, 32_000
ATTEMPTS = 200


@contextmanager
def hold_port(preferred: int | None = None) -> Iterator[socket.socket]:
    """Listen on a free port, `preferred` if it is free; leave the context (or close) just before the server starts.

    The port is `held.getsockname()[1]`. A socket that listens keeps even those away who bind with SO_REUSEADDR.

    Raises:
        EmbeddedServerError: no free port was found.
    """
    choices = random.SystemRandom()
    candidates = [preferred] if preferred else []
    candidates += [choices.randrange(LOWEST, HIGHEST) for _ in range(ATTEMPTS)]
    for port in candidates:
        held = _listen(port)
        if held is not None:
            with held:
                yield held
            return
    raise EmbeddedServerError(
        f"an embedded server needs one free port on 127.0.0.1; tried {ATTEMPTS} between {LOWEST!r} and {HIGHEST!r}, "
        "all taken: stop what occupies them"
    )


def free_port(preferred: int | None = None) -> int:
    """A port that was free a moment ago. Where a race would hurt, use `hold_port` instead."""
    with hold_port(preferred) as held:
        return int(held.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    held = _listen(port)
    if held is not None:
        held.close()
    return held is not None


def _listen(port: int) -> socket.socket | None:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: ignore TIME_WAIT
        held.bind(("127.0.0.1", port))
        held.listen(1)
    except OSError:
        held.close()
        return None
    return held
