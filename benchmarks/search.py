"""What a search costs and what its claims are worth.

    python -m benchmarks.search [--quick] [--only PART ...] [--json FILE]

Parts are measured one after the other, and each replaces its own figures in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.claims import Report, run
from benchmarks.search_idle import idle
from benchmarks.search_parts import update
from benchmarks.search_real import null, replays
from benchmarks.search_refine import measure as refinement
from benchmarks.search_simulation import simulation

#: Each measures one thing and claims its figures.
PARTS: dict[str, Callable[[Report], None]] = {
    "simulation": simulation,
    "idle": idle,
    "replays": replays,
    "null": null,
    "refinement": refinement,
}


def main(argv: list[str] | None = None) -> int:
    """Measure the parts that are asked for, all by default; 0 when every goal that was measured is reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what fits in five minutes")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="parts of it")
    parser.add_argument("--json", type=Path, help="put the figures into this file, part by part")
    options = parser.parse_args(argv)
    missed = 0
    for part in options.only:
        with TemporaryDirectory() as folder:
            alone = Path(folder) / "part.json"
            asked = [*["--quick"] * options.quick, "--only", part, "--json", str(alone)]
            missed |= run("search", PARTS[part], asked, parts=tuple(PARTS))
            if options.json is not None:
                found = json.loads(alone.read_text(encoding="utf-8"))
                update(options.json, part, {"date": f"{datetime.now(UTC):%Y-%m-%d}", **found}, tuple(PARTS))
    return missed


if __name__ == "__main__":
    sys.exit(main())
