"""Where an artifact's files lie: only what its manifest names is ever opened."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from core.errors import NotFoundError
from core.records import ArtifactRecord
from core.settings import Settings


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of an artifact: its name within it, its place, its size in bytes and its sha256."""

    name: str
    path: Path
    bytes: int
    sha256: str


def artifact_file(record: ArtifactRecord, name: str, settings: Settings) -> KeptFile:
    """The file of that name.

    Raises:
        NotFoundError: the manifest does not name it, or it is gone.
        ServiceUnavailableError: no artifact folder is configured.
    """
    for entry in record.files:
        if entry.get("path") == name:
            return _kept(record, entry, settings.artifact_root())
    raise NotFoundError(f"{record.id!r} has no file {name[:200]!r}: its manifest lists what it has", where="path")


def artifact_files(record: ArtifactRecord, settings: Settings) -> list[KeptFile]:
    """Every file of the manifest.

    Raises:
        NotFoundError: one of them is gone.
        ServiceUnavailableError: no artifact folder is configured.
    """
    root = settings.artifact_root()
    return [_kept(record, entry, root) for entry in record.files]


def remove_files(record: ArtifactRecord, settings: Settings) -> None:
    """Remove an artifact's folder. What is left of it after a failure no row knows of.

    Raises:
        ServiceUnavailableError: no artifact folder is configured.
    """
    root = settings.artifact_root().resolve()
    folder = (root / record.path).resolve()
    # A row that somebody tampered with must not clear away the rest of the disk either.
    if folder != root and folder.is_relative_to(root):
        shutil.rmtree(folder, ignore_errors=True)


def _kept(record: ArtifactRecord, entry: dict[str, object], root: Path) -> KeptFile:
    name, folder = str(entry["path"]), (root / record.path).resolve()
    path = (folder / name).resolve()
    # A row that somebody tampered with must not open the rest of the disk either.
    if not (folder.is_relative_to(root.resolve()) and path.is_relative_to(folder) and path.is_file()):
        raise NotFoundError(f"{name!r} of {record.id!r} is no longer there: export the trial again", where="path")
    return KeptFile(name, path, path.stat().st_size, str(entry.get("sha256", "")))
