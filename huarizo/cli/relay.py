"""Run a verb in a process of its own that tells its progress in JSON lines on stdout.

{"event": "progress", "doing": "...", "done": 3, "total": 10}, at last {"event": "done", ...} or
{"event": "error", "code": "...", "message": "..."}. Heavy libraries stay out of the command line's own process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from core.errors import HuarizoError
from huarizo.cli.console import err
from huarizo.cli.failure import error_of
from huarizo.cli.progress import Advance, shown
from huarizo.embedded import lifeline

TAIL_LINES = 6
Json = dict[str, Any]


def relay(argv: Sequence[str], *, environment: Mapping[str, str], title: str) -> Json:
    """Run the process to its end, showing its progress.

    Returns:
        Its `done` event.

    Raises:
        HuarizoError: the error that it told, by its code; or one of code `internal` if it ended without a word.
    """
    with tempfile.TemporaryFile() as noise, shown(err(), title) as advance:
        with _process(argv, environment, noise) as process:
            end = _follow(process.stdout or (), advance)
            status = process.wait()
        if end is not None and end["event"] == "done":
            return end
        if end is not None:
            raise error_of(str(end.get("code")), str(end.get("message")))
        raise HuarizoError(f"{title} ended with status {status!r} and no result:\n{_tail(noise)}")


@contextmanager
def _process(argv: Sequence[str], environment: Mapping[str, str], noise: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    """The process, which is ended with its group when the context is left early."""
    process = lifeline.popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=noise, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _follow(lines: Iterator[str] | Sequence[str] | IO[str], advance: Advance) -> Json | None:
    """Show progress until the final event; lines that are no events are somebody's stray print."""
    end = None
    for line in lines:
        event = _event(line)
        if event is None:
            continue
        if event["event"] == "progress":
            advance(str(event.get("doing") or f"{event.get('done')} of {event.get('total')}"), _fraction(event))
        elif event["event"] in ("done", "error"):
            end = event
    return end


def _event(line: str) -> Json | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _fraction(event: Json) -> float:
    total = float(event.get("total") or 0)
    return min(float(event.get("done") or 0) / total, 1.0) if total else 0.0


def _tail(noise: IO[bytes]) -> str:
    noise.seek(0)
    return "\n".join(noise.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
