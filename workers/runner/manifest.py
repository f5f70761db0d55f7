"""The manifest of a kept folder: every file with its hash, written last, so that a folder with one is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.durable import sync_file, sync_folder

MANIFEST = "huarizo.json"


def write_manifest(folder: Path, about: dict[str, Any], hashes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write the manifest, last and in one move; it and what it lists is on the disk then.

    Args:
        folder: the kept folder.
        about: what it says besides its files.
        hashes: the sha256 of files that were hashed and put on the disk as they were written, by name; every other file
            is read for it.

    Raises:
        OSError: a file cannot be read, or the disk does not take it.
    """
    known = hashes or {}
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = [_entry(path, str(path.relative_to(folder)), known) for path in names]
    manifest = {**about, "files": files}
    unfinished = folder / f".{MANIFEST}.partial"
    unfinished.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sync_file(unfinished)
    unfinished.rename(folder / MANIFEST)
    sync_folder(folder)
    return manifest


def _entry(path: Path, name: str, known: Mapping[str, str]) -> dict[str, Any]:
    sha256 = known.get(name)
    if sha256 is None:
        sha256 = sha256_of(path)
        sync_file(path)
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256}


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
