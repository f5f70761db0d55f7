"""Where output goes: results to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

from rich.console import Console


@cache
def out() -> Console:
    """For what was asked for. Without a terminal it is wide, so that no line of a table is cut or wrapped."""
    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 200)


@cache
def err() -> Console:
    """For progress and remarks."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)


def print_json(value: Any) -> None:
    """JSON for machines on stdout: indented, keys as they came."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    """One line on stdout, taken literally and never wrapped: somebody may want to copy it."""
    out().print(text, markup=False, soft_wrap=True)


def remark(text: str) -> None:
    """One line on stderr, likewise."""
    err().print(text, markup=False, soft_wrap=True)
