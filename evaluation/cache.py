"""Prepared tasks kept on disk, so that a runner that starts anew builds and encodes no prompt a second time.

A file's name is a digest over everything that its content depends on: documents, example pool, configuration, shots,
tokenizer files, lengths, library versions and the form of the file itself. So nothing ever has to be declared stale:
what changed has another name. Files are written under a temporary name and renamed, are only ever numbers and JSON, and
one that cannot be read is built anew.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from core.noun import digest_of
from evaluation.answers import AnswerRule
from evaluation.trees import TokenTree

#: Raised whenever the form of a file, or how trees and rules are made from a task, changes.
FORMAT = 2
#: Bytes of all files together; the least recently used ones go first.
MAX_BYTES = 8 << 30
_SUFFIX = ".safetensors"
_ARRAYS = tuple(field.name for field in fields(TokenTree) if field.name != "requests")
_NAMES = {np.dtype("<i4"): "I32", np.dtype("<i8"): "I64", np.dtype("<f8"): "F64"}
#: Everything that reading a foreign or half-written file may raise.
_UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plans:
    """What preparing a task yields besides its content.

    Attributes:
        trees: one per canonical document.
        rules: how each is judged.
        prompts_digest: over all prompts.
        largest_token: in any of the trees.
    """

    trees: tuple[TokenTree, ...]
    rules: tuple[AnswerRule, ...]
    prompts_digest: str
    largest_token: int


class PlanCache:
    """A folder of prepared tasks.

    Args:
        folder: made on first use; None keeps nothing.
        max_bytes: how large it may grow.
    """

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def holds(self, content: dict[str, Any]) -> bool:
        """Whether something is kept under that content, readable or not."""
        path = self._path(content)
        return path is not None and path.is_file()

    def load(self, content: dict[str, Any]) -> Plans | None:
        """The plans kept under that content; None where there are none that can be read."""
        path = self._path(content)
        if path is None or not path.is_file():
            return None
        try:
            plans = _read(path)
            os.utime(path)
        except _UNREADABLE as error:
            logger.warning("a prepared task cannot be read from %s (%s): it is built anew", path.name, error)
            return None
        return plans

    def keep(self, content: dict[str, Any], plans: Plans) -> None:
        """Write plans; a disk that is full or read-only costs the next start time, nothing else."""
        path = self._path(content)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, plans)
            self._make_room()
        except OSError as error:
            logger.warning("a prepared task cannot be kept in %s (%s): it is built anew next time", path.parent, error)

    def _path(self, content: dict[str, Any]) -> Path | None:
        return None if self._folder is None else self._folder / f"{digest_of({**content, 'format': FORMAT})}{_SUFFIX}"

    def _make_room(self) -> None:
        assert self._folder is not None
        found = [(file, file.stat()) for file in self._folder.glob(f"*{_SUFFIX}")]
        size = sum(stat.st_size for _, stat in found)
        for file, stat in sorted(found, key=lambda pair: pair[1].st_mtime):
            if size <= self._max_bytes:
                return
            file.unlink(missing_ok=True)
            size -= stat.st_size


def _write(path: Path, plans: Plans) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            about = {"prompts_digest": plans.prompts_digest, "largest_token": plans.largest_token}
            _write_columns(file, _columns(plans), {"about": json.dumps(about)})
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _columns(plans: Plans) -> dict[str, list[NDArray[Any]]]:
    """Every array as the parts that stand one after the other in it, and where each part ends."""
    columns = {name: [getattr(tree, name) for tree in plans.trees] for name in _ARRAYS}
    columns["right"] = [np.array(rule.right, np.int32) for rule in plans.rules]
    columns["lengths"] = [rule.lengths for rule in plans.rules]
    ends = {f"{name}.ends": [np.cumsum([len(part) for part in parts])] for name, parts in columns.items()}
    return {**columns, **ends, "requests": [np.array([tree.requests for tree in plans.trees])]}


def _write_columns(file: IO[bytes], columns: dict[str, list[NDArray[Any]]], metadata: dict[str, str]) -> None:
    """One safetensors file, written part by part: joined first, everything would be in memory three times."""
    entries: dict[str, Any] = {"__metadata__": metadata}
    place, ordered = 0, sorted(columns, key=lambda name: -_dtype(name).itemsize)  # Wide ones first keeps all aligned.
    for name in ordered:
        count, dtype = sum(map(len, columns[name])), _dtype(name)
        end = place + count * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": [count], "data_offsets": [place, end]}
        place = end
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    for name in ordered:
        for part in columns[name]:
            file.write(np.ascontiguousarray(part, _dtype(name)).data)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "lengths":
        return np.dtype("<f8")
    return np.dtype("<i8" if name.endswith(".ends") else "<i4")


def _read(path: Path) -> Plans:
    with safe_open(path, framework="np") as file:  # Refuses a file that is not whole.
        about = json.loads(file.metadata()["about"])
    arrays = _arrays(path)
    columns = {name: _parted(arrays, name) for name in (*_ARRAYS, "right", "lengths")}
    trees = tuple(
        TokenTree(**{name: columns[name][number] for name in _ARRAYS}, requests=count)
        for number, count in enumerate(arrays["requests"].tolist())
    )
    rules = tuple(
        AnswerRule(tuple(right.tolist()), lengths)
        for right, lengths in zip(columns["right"], columns["lengths"], strict=True)
    )
    if len(rules) != len(trees):
        raise ValueError(f"{len(trees)} documents have {len(rules)} rules")
    return Plans(trees, rules, str(about["prompts_digest"]), int(about["largest_token"]))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file, read into their places: its own library would hold every byte twice meanwhile."""
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        entries = {name: entry for name, entry in json.loads(file.read(start - 8)).items() if name != "__metadata__"}
    return {
        name: np.fromfile(path, _dtype(name), entry["shape"][0], offset=start + entry["data_offsets"][0])
        for name, entry in entries.items()
    }


def _parted(arrays: dict[str, NDArray[Any]], name: str) -> list[NDArray[Any]]:
    return np.split(arrays[name], arrays[f"{name}.ends"][:-1])
