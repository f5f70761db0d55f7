"""Writing safetensors one tensor at a time: the layout is known beforehand, so nothing is held back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from core.checkpoint import SINGLE
from core.model import DTYPE_BYTES, TensorInfo

#: Bytes from which on the disk is told to begin: left to itself the system waits for gigabytes, then for all of them.
BEHIND = 1 << 26
#: macOS has no call that leaves the times of a file alone.
_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export: its name, its size in bytes and its sha256."""

    name: str
    bytes: int
    sha256: str


def tensor_size(info: TensorInfo) -> int:
    """Bytes a tensor takes in its file."""
    return info.elements * DTYPE_BYTES[info.dtype]


def cut(tensors: Sequence[TensorInfo], max_shard_bytes: int) -> tuple[tuple[TensorInfo, ...], ...]:
    """The tensors in order, cut into shards of at most that many bytes (a larger tensor gets a shard of its own)."""
    shards: list[list[TensorInfo]] = [[]]
    filled = 0
    for info in tensors:
        size = tensor_size(info)
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(info)
        filled += size
    return tuple(tuple(shard) for shard in shards)


def shard_names(count: int) -> tuple[str, ...]:
    """File names of that many shards, as transformers expects them."""
    if count == 1:
        return (SINGLE,)
    return tuple(f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1))


def index_text(shards: Sequence[Sequence[TensorInfo]]) -> str:
    """The text of `model.safetensors.index.json`."""
    names = shard_names(len(shards))
    weight_map = {info.name: name for name, shard in zip(names, shards, strict=True) for info in shard}
    total = sum(tensor_size(info) for shard in shards for info in shard)
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


class ShardWriter:
    """One safetensors file, its tensors written in the order given. Use it as a context manager.

    What is written is hashed meanwhile, and the disk takes it meanwhile.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, tensors: Sequence[TensorInfo]) -> None:
        self._path = path
        self._header = _header(tensors)
        self._sha = hashlib.sha256()
        self._size = self._sent = 0
        self._hashing = ThreadPoolExecutor(2, thread_name_prefix="shard-hash")
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="shard-sync")
        self._sync: Future[None] | None = None
        #: The sha256 of every tensor so far.
        self.digests: list[str] = []

    def __enter__(self) -> ShardWriter:
        self._file: BinaryIO = self._path.open("wb")
        self._sha.update(self._header)
        self._append(memoryview(self._header))
        return self

    def write(self, data: memoryview) -> None:
        """Append the bytes of the next tensor."""
        whole, own = self._hashing.submit(self._sha.update, data), self._hashing.submit(hashlib.sha256, data)
        self._append(data)
        whole.result()
        self.digests.append(own.result().hexdigest())

    def _append(self, data: memoryview) -> None:
        self._file.write(data)
        self._size += data.nbytes
        if self._size - self._sent >= BEHIND and (self._sync is None or self._sync.done()):
            self._check_sync()
            self._sent = self._size
            self._file.flush()
            self._sync = self._sending.submit(_sync, self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hashing.shutdown()
        self._sending.shutdown()
        with self._file:
            if error is None:
                self._check_sync()
                # A checkpoint that is said to be complete must survive a power cut.
                self._file.flush()
                os.fsync(self._file.fileno())

    def _check_sync(self) -> None:
        """Raise what the disk said of an earlier stretch: the system tells it only once."""
        if self._sync is not None:
            self._sync.result()

    @property
    def written(self) -> ExportedFile:
        """What has been written so far."""
        return ExportedFile(self._path.name, self._size, self._sha.hexdigest())


def _header(tensors: Sequence[TensorInfo]) -> bytes:
    """Length and JSON, padded so that the first tensor starts at a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for info in tensors:
        stop = start + tensor_size(info)
        entries[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
