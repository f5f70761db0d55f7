"""One file of results that is measured part by part: each keeps the command, commit, machine and day it is from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.claims import Report, run

#: What a part keeps of a run besides its claims, notes and what was not run.
ABOUT = ("date", "command", "commit", "machine", "seconds")


def measured(name: str, about: str | None, parts: Mapping[str, Callable[[Report], None]], argv: Any = None) -> int:
    """The command line of a benchmark whose parts are measured one after the other.

    Each replaces its own figures in the file of `--json`.

    Args:
        name: of the benchmark.
        about: what `--help` says of it.
        parts: what measures each, by name, in order.
        argv: the arguments; those of the process by default.

    Returns:
        0 when every goal that was measured is reached, else 1.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--quick", action="store_true", help="only what fits in five minutes")
    parser.add_argument("--only", nargs="+", choices=tuple(parts), default=list(parts), help="parts of it")
    parser.add_argument("--json", type=Path, help="put the figures into this file, part by part")
    options = parser.parse_args(argv)
    missed = 0
    for part in options.only:
        with TemporaryDirectory() as folder:
            alone = Path(folder) / "part.json"
            asked = [*["--quick"] * options.quick, "--only", part, "--json", str(alone)]
            missed |= run(name, parts[part], asked, parts=tuple(parts))
            if options.json is not None:
                found = json.loads(alone.read_text(encoding="utf-8"))
                update(options.json, part, {"date": f"{datetime.now(UTC):%Y-%m-%d}", **found}, tuple(parts))
    return missed


def update(file: Path, part: str, found: Mapping[str, Any], order: Sequence[str]) -> None:
    """Put a part's figures in the place of those that the file has of it; other parts stay as they are.

    Args:
        file: of results; it may be missing.
        part: by name.
        found: what a run of that part alone wrote, with its date.
        order: of the parts, by name.
    """
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(merged(known, part, found, order), indent=1, ensure_ascii=False) + "\n", "utf-8")


def merged(known: Mapping[str, Any], part: str, found: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """The results with a part's put in; machine and commit at the top are those of the part measured last."""
    parts = {**known.get("parts", {}), part: {name: found[name] for name in ABOUT}}

    def all_of(kind: str) -> list[Any]:
        kept = [entry for entry in known.get(kind, ()) if entry["part"] != part]
        every = [*kept, *({"part": part, **entry} for entry in found[kind])]
        return sorted(every, key=lambda entry: order.index(entry["part"]))

    notes = {**known.get("notes", {}), part: list(found["notes"])}
    named = [name for name in order if name in parts]
    latest = max(named, key=lambda name: (parts[name]["date"], name == part))
    return {
        "machine": parts[latest]["machine"],
        "commit": parts[latest]["commit"],
        "parts": {name: parts[name] for name in named},
        "claims": all_of("claims"),
        "not_run": all_of("not_run"),
        "notes": {name: notes[name] for name in named},
    }
