"""Searches that took minutes, each kept in a file of its own: a run that broke off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims import ROOT

#: Under this variable, a folder for finished searches.
KEEP = "HUARIZO_BENCHMARK_RUNS"


def kept(name: str, sources: Sequence[str], compute: Callable[[], Any]) -> Any:
    """The result under a name: read where it was kept, else computed and kept.

    Args:
        name: of the search; names of different searches differ.
        sources: files below the repository's root that decide its result: what other code found is never taken.
        compute: finds it; JSON.
    """
    folder = os.environ.get(KEEP)
    if not folder:
        return compute()
    place = Path(folder) / f"{name}-{_digest(sources)}.json"
    if place.exists():
        return json.loads(place.read_text(encoding="utf-8"))
    found = compute()
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_suffix(".part")
    aside.write_text(json.dumps(found), encoding="utf-8")
    aside.replace(place)
    return found


def _digest(sources: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update((ROOT / source).read_bytes())
    return digest.hexdigest()[:12]
