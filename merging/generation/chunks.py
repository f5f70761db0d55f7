"""Tensors cut into chunks of one size: row by row, never across tensors, the last one padded under a mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One chunk in the index.

    Attributes:
        tensor: position of its tensor.
        number: of the chunk within it.
        offset, numel: which of the tensor's values it holds.
    """

    tensor: int
    number: int
    offset: int
    numel: int


def count(numel: int, size: int) -> int:
    """Chunks of a tensor of so many values."""
    return -(-numel // size)


def index(numels: Sequence[int], size: int) -> Iterator[Row]:
    """The chunks of several tensors, in order."""
    for tensor, numel in enumerate(numels):
        for number in range(count(numel, size)):
            offset = number * size
            yield Row(tensor, number, offset, min(size, numel - offset))


def pack(values: Tensor, size: int) -> Tensor:
    """The values as chunks, in their own dtype: (n,) to (chunks, size), zeros behind the last."""
    flat = values.reshape(-1)
    rows = count(flat.numel(), size)
    return torch.nn.functional.pad(flat, (0, rows * size - flat.numel())).view(rows, size)


def unpack(chunks: Tensor, numel: int) -> Tensor:
    """The values of chunks: (chunks, size) to (numel,)."""
    return chunks.reshape(-1)[:numel]


def mask(numel: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """1 where a chunk holds a value and 0 where it is padded: float32, (chunks, size)."""
    return pack(torch.ones(numel, device=device), size)
