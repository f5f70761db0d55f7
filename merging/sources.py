"""The parents' tensors: safetensors files mapped once, kept on the device as far as they fit."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from core.checkpoint import StoredTensor, stored_tensors
from core.errors import CheckpointError, MissingCheckpointError, NonFiniteCheckpointError
from core.model import DTYPE_BYTES, DTYPE_NAMES, Header, TensorInfo
from core.recipe.output import SAVE_DTYPES
from merging.generation.opened import Generators
from merging.memory import free_bytes, in_rows, natural

#: Share of the memory free at the start that kept tensors may fill.
KEPT_SHARE = 0.5


class Derived(Protocol):
    """Tensors that are made of parents' tensors, and that candidates take like a parent's."""

    def origin(self, name: str) -> tuple[str, str] | None:
        """(weights digest, name) of the tensor that this one simply is; None for one that is made."""

    def make(self, name: str, parents: Parents) -> torch.Tensor:
        """One tensor, on the parents' device; a function of their tensors and of nothing else."""

    def making_bytes(self, name: str, parents: Parents) -> int:
        """An upper bound on the memory that `make` takes beside its result."""


class Parents:
    """Checkpoint folders opened once, by weights digest.

    Args:
        folders: where each model's checkpoint lies.
        headers: what was registered of each model; the files must agree with it.
        device: where tensors are wanted.
        keep_bytes: how much of them may stay on the device; by default a share of what is free now.
        generators: where each generator of weights lies, by digest; opened when a candidate asks for one.

    Raises:
        MissingCheckpointError, TruncatedCheckpointError, PickleCheckpointError, QuantisedCheckpointError: see
            `core.checkpoint.read_header`.
        CheckpointError: the files hold other tensors than the header says.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        headers: Mapping[str, Header],
        device: torch.device | str = "cpu",
        *,
        keep_bytes: int | None = None,
        generators: Mapping[str, Path] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.generators = Generators({} if generators is None else generators, self.device)
        self.headers = dict(headers)
        self._stored = {digest: _open(folder, self.headers, digest) for digest, folder in folders.items()}
        self.folders = dict(folders)
        self._derived: dict[str, Derived] = {}
        self._files: dict[Path, mmap.mmap] = {}
        self._kept: dict[tuple[str, str], torch.Tensor] = {}
        self._rows: dict[tuple[str, str], torch.Tensor] = {}
        self._room = int(free_bytes(self.device) * KEPT_SHARE) if keep_bytes is None else keep_bytes
        self._peaks: dict[tuple[str, str], float] = {}

    def derive(self, digest: str, derived: Derived) -> None:
        """Offer tensors under a digest of their own, which names what they are made of and how."""
        self._derived[digest] = derived

    def tensor(self, digest: str, name: str, *, keep: bool = True) -> torch.Tensor:
        """A model's tensor in its own dtype, on the device. Never write into it.

        Args:
            digest: the model's weights digest.
            name: the tensor's name there.
            keep: hold it on the device for the next call, if there is room.

        Raises:
            MissingCheckpointError: no such model or tensor.
            NonFiniteCheckpointError: the tensor holds NaN or infinity.
        """
        kept = self._kept.get((digest, name))
        if kept is not None:
            return kept
        derived = self._derived.get(digest)
        if derived is not None and (origin := derived.origin(name)):
            return self.tensor(*origin, keep=keep)
        tensor = derived.make(name, self) if derived is not None else self._read(digest, name, keep)
        if (digest, name) not in self._peaks:
            peak = largest_magnitude(tensor)
            if not math.isfinite(peak):
                raise NonFiniteCheckpointError(
                    f"parents must be finite, but tensor {name!r} of {digest!r} is not: repair that checkpoint",
                    where=name,
                )
            self._peaks[digest, name] = peak
        if derived is not None and keep and tensor.nbytes <= self._room:
            self._room -= tensor.nbytes
            self._rows[digest, name] = tensor
        if (digest, name) in self._rows:
            self._kept[digest, name] = tensor
        return tensor

    def making_bytes(self, digest: str, name: str) -> int:
        """The memory that `tensor` takes beside its result: none for one that is read, not made."""
        derived = self._derived.get(digest)
        if derived is None:
            return 0
        origin = derived.origin(name)
        return self.making_bytes(*origin) if origin else derived.making_bytes(name, self)

    def read_bytes(self, digest: str, name: str) -> int:
        """An upper bound on the memory that `tensor` takes, its result included."""
        info = next(info for info in self.headers[digest].tensors if info.name == name)
        return info.elements * DTYPE_BYTES[info.dtype] + self.making_bytes(digest, name)

    def _read(self, digest: str, name: str, keep: bool) -> torch.Tensor:
        """A tensor on the device, in memory that is kept where there is room."""
        if digest not in self._stored:
            raise MissingCheckpointError(f"the model with weights {digest!r} is not open: give its folder")
        stored = self._stored[digest].get(name)
        if stored is None:
            raise MissingCheckpointError(f"the model with weights {digest!r} has no tensor {name!r}", where=name)
        mapped, row = self.mapped(stored), self._row(digest, stored.info) if keep else None
        return mapped.to(self.device) if row is None else row.copy_(mapped)

    def _row(self, digest: str, info: TensorInfo) -> torch.Tensor | None:
        """Memory to keep a tensor in, beside the model's others of its size; None if there is no room."""
        if (digest, info.name) in self._rows:
            return self._rows[digest, info.name]
        stored = [each.info for each in self._stored[digest].values()]
        alike = [each for each in stored if (each.elements, each.dtype) == (info.elements, info.dtype)]
        for group in (sorted(alike, key=lambda each: natural(each.name)), [info]):
            size = len(group) * info.elements * torch_dtype(info).itemsize
            if size <= self._room:
                self._room -= size
                rows = in_rows([(each.shape, torch_dtype(each)) for each in group], self.device)
                self._rows.update(((digest, each.name), row) for each, row in zip(group, rows, strict=True))
                return self._rows[digest, info.name]
        return None

    def keeps(self, digest: str, name: str) -> bool:
        """Whether a tensor is held on the device for good."""
        derived = self._derived.get(digest)
        origin = None if derived is None else derived.origin(name)
        return self.keeps(*origin) if origin else (digest, name) in self._kept

    def peak(self, digest: str, name: str) -> float | None:
        """The largest magnitude in a tensor; None unless it was read before."""
        derived = self._derived.get(digest)
        origin = None if derived is None else derived.origin(name)
        return self.peak(*origin) if origin else self._peaks.get((digest, name))

    @property
    def kept_bytes(self) -> int:
        """Bytes set aside for tensors held on the device."""
        return sum(tensor.nbytes for tensor in self._rows.values())

    def mapped(self, stored: StoredTensor) -> torch.Tensor:
        """A view of the file's bytes; the mapping is private, so that no write could ever reach the file."""
        info = stored.info
        dtype = torch_dtype(info)
        if stored.file not in self._files:
            with stored.file.open("rb") as handle:
                self._files[stored.file] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
        mapped = self._files[stored.file]
        if not info.elements:
            return torch.empty(info.shape, dtype=dtype)
        if stored.start % dtype.itemsize:
            data = bytearray(mapped[stored.start : stored.stop])
            return torch.frombuffer(data, dtype=dtype).view(info.shape)
        return torch.frombuffer(mapped, dtype=dtype, count=info.elements, offset=stored.start).view(info.shape)


def torch_dtype(info: TensorInfo) -> torch.dtype:
    """torch's dtype of a stored tensor."""
    dtype: torch.dtype = getattr(torch, DTYPE_NAMES[info.dtype])
    return dtype


def safetensors_dtype(dtype: torch.dtype) -> str:
    """safetensors' name of one of torch's dtypes."""
    return SAVE_DTYPES[str(dtype).removeprefix("torch.")]


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, little-endian and row-major, on the host."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    data: memoryview = flat.view(torch.uint8).numpy().data
    return data


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return math.isfinite(largest_magnitude(tensor))


def largest_magnitude(tensor: torch.Tensor) -> float:
    """The largest magnitude, NaN where an element is: one pass, no temporaries, independent of order."""
    if not tensor.numel():
        return 0.0
    least, most = torch.stack(torch.aminmax(tensor)).tolist()
    return least if math.isnan(least) else float(max(-least, most))


def _open(folder: Path, headers: Mapping[str, Header], digest: str) -> dict[str, StoredTensor]:
    """Where each tensor of a checkpoint lies, checked against its header."""
    stored = {item.info.name: item for item in stored_tensors(folder)}
    if digest not in headers:
        raise MissingCheckpointError(f"no header for the model with weights {digest!r}: register it first")
    for info in headers[digest].tensors:
        if info.name not in stored or stored[info.name].info != info:
            raise CheckpointError(
                f"tensor {info.name!r} must be as registered, but {folder.name!r} differs: register the model again",
                where=info.name,
            )
    return stored
