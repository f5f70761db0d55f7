"""The manifest of a kept folder: every file with its hash, written last, so that a folder with one is complete."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = "huarizo.json"


def write_manifest(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Hash every file and write the manifest, last and in one move."""
    files = [
        {"path": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    ]
    manifest = {**about, "files": files}
    unfinished = folder / f".{MANIFEST}.partial"
    unfinished.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    unfinished.rename(folder / MANIFEST)
    return manifest


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
