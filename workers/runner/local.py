"""How a local verb's process talks: JSON lines on standard output, {"event": "progress" | "done" | "error", ...}."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from workers.failures import failure_of


def reported(work: Callable[[], dict[str, Any]]) -> int:
    """Do the work and tell what came of it; the exit status is 1 after an error."""
    try:
        report = work()
    except Exception as error:
        failure = failure_of(error)
        if failure.code == "internal":
            traceback.print_exception(error)
        say({"event": "error", "code": failure.code, "message": failure.message})
        return 1
    say({"event": "done", **report})
    return 0


def say(event: dict[str, Any]) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
