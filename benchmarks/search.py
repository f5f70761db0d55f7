"""What a search costs and what its claims are worth: `python -m benchmarks.search [--quick] [--json FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.claims import Report, run
from benchmarks.search_idle import idle
from benchmarks.search_real import real
from benchmarks.search_refine import measure as refinement
from benchmarks.search_simulation import simulation

#: Each measures one thing and claims its figures.
PARTS: tuple[Callable[[Report], None], ...] = (simulation, idle, real, refinement)


def measure(report: Report) -> None:
    """All parts, one after the other."""
    for part in PARTS:
        part(report)


if __name__ == "__main__":
    sys.exit(run("search", measure))
