"""Writing safetensors one tensor at a time: the layout is known beforehand, so nothing is held back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from core.checkpoint import SINGLE
from core.model import DTYPE_BYTES, TensorInfo
from merging.direct import PIECE, DirectFile


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

    Args:
        path: where the file is made.
        tensors: all of them.
        piece: bytes handed to the disk at once.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, tensors: Sequence[TensorInfo], piece: int = PIECE) -> None:
        self._path, self._piece = path, piece
        self._header = _header(tensors)
        self._size = len(self._header) + sum(map(tensor_size, tensors))
        self._sha = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(2, thread_name_prefix="shard-hash")
        #: The sha256 of every tensor so far.
        self.digests: list[str] = []

    def __enter__(self) -> ShardWriter:
        self._file = DirectFile(self._path, self._size, self._piece)
        self._sha.update(self._header)
        self._file.write(self._header)
        return self

    def write(self, data: memoryview) -> None:
        """Append the bytes of the next tensor."""
        whole, own = self._hashing.submit(self._sha.update, data), self._hashing.submit(hashlib.sha256, data)
        self._file.write(data)
        whole.result()
        self.digests.append(own.result().hexdigest())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hashing.shutdown()
        self._file.close(complete=error is None)

    @property
    def written(self) -> ExportedFile:
        """The file, once all of it is written."""
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
