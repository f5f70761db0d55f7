"""One file of results that is measured part by part: each keeps the command, commit, machine and day it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: What a part keeps of a run besides its claims, notes and what was not run.
ABOUT = ("date", "command", "commit", "machine", "seconds")


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
