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
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from core.noun import digest_of
from evaluation.answers import AnswerRule
from evaluation.trees import TokenTree

#: Raised whenever the form of a file, or how trees and rules are made from a task, changes.
FORMAT = 1
#: Bytes of all files together; the least recently used ones go first.
MAX_BYTES = 8 << 30
_SUFFIX = ".safetensors"
_ARRAYS = tuple(field.name for field in fields(TokenTree) if field.name != "requests")
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
    """

    trees: tuple[TokenTree, ...]
    rules: tuple[AnswerRule, ...]
    prompts_digest: str


class PlanCache:
    """A folder of prepared tasks.

    Args:
        folder: made on first use; None keeps nothing.
        max_bytes: how large it may grow.
    """

    def __init__(self, folder: Path | None, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

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
    arrays: dict[str, NDArray[Any]] = {}
    for name in _ARRAYS:
        arrays |= _joined(name, [getattr(tree, name) for tree in plans.trees])
    arrays["requests"] = np.array([tree.requests for tree in plans.trees], np.int32)
    arrays |= _joined("right", [np.array(rule.right, np.int32) for rule in plans.rules])
    arrays |= _joined("lengths", [rule.lengths for rule in plans.rules])
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        save_file(arrays, name, metadata={"about": json.dumps({"prompts_digest": plans.prompts_digest})})
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _joined(name: str, parts: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """One array of all parts, and where each part ends."""
    return {name: np.concatenate(parts), f"{name}.ends": np.cumsum([len(part) for part in parts], dtype=np.int64)}


def _read(path: Path) -> Plans:
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
        requests = file.get_tensor("requests").tolist()
        columns = {name: _parted(file, name) for name in (*_ARRAYS, "right", "lengths")}
    trees = tuple(
        TokenTree(**{name: columns[name][number] for name in _ARRAYS}, requests=count)
        for number, count in enumerate(requests)
    )
    rules = tuple(
        AnswerRule(tuple(right.tolist()), lengths)
        for right, lengths in zip(columns["right"], columns["lengths"], strict=True)
    )
    if len(rules) != len(trees):
        raise ValueError(f"{len(trees)} documents have {len(rules)} rules")
    return Plans(trees, rules, str(about["prompts_digest"]))


def _parted(file: Any, name: str) -> list[NDArray[Any]]:
    whole, ends = file.get_tensor(name), file.get_tensor(f"{name}.ends")
    return np.split(whole, ends[:-1])
