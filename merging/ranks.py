"""The rank of every element of a task vector within its row, by magnitude; taken once per source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.kernels import BLOCK, Inputs
from merging.masks import MAGNITUDE, sizes

#: Bytes per element of the planes (but for rows of more than 2^16 elements, which only small tensors have).
RANK_BYTES = 2


def row_ranks(inputs: Inputs, position: int) -> tuple[Tensor, ...]:
    """Ranks from 0, the smallest, to columns - 1, as fields of a step that `joined` reads.

    Of equal magnitudes the first counts as the largest. A row runs along the last dimension; a 1-D tensor is one row.

    Returns:
        planes: of the tensor's shape; the low and the high byte of every rank, the ranks in 16 bits where kernels take
            16-bit numbers in pairs, or in 32 where rows are very long.
    """
    assert inputs.base is not None
    key = ("row ranks", inputs.content[position], inputs.content[inputs.base], inputs.columns)
    beside = inputs.tensors[position], inputs.tensors[inputs.base]
    kinds = _kinds(inputs)
    return inputs.statistics.rows(key, beside, inputs.shape, kinds, lambda planes: _fill(planes, inputs, position))


def joined(planes: Sequence[Tensor]) -> Tensor:
    """The ranks as int32; may be the plane itself."""
    if len(planes) == 1:
        return planes[0].to(torch.int32)
    low, high = planes
    return high.to(torch.int32).bitwise_left_shift_(8).bitwise_or_(low.to(torch.int32))


def _fill(planes: Sequence[Tensor], inputs: Inputs, position: int) -> None:
    columns, device = inputs.columns, inputs.device
    planes, narrow = [plane.view(-1, columns) for plane in planes], len(planes) == 2
    descending = torch.arange(columns - 1, -1, -1, device=device)
    step = max(1, BLOCK // columns)
    for first in range(0, planes[0].shape[0], step):
        parts = [plane[first : first + step] for plane in planes]
        start = first * columns
        bits = sizes(inputs.delta(position, start, start + parts[0].numel())).view(parts[0].shape)
        order = _largest_first(bits)
        for shift, part in enumerate(parts):
            values = (descending >> 8 * shift & 255 if narrow else descending).to(part.dtype)
            part.scatter_(1, order, values.expand(part.shape))


def _kinds(inputs: Inputs) -> tuple[torch.dtype, ...]:
    """Compilers know how to read 8 bits and 32 at the speed of memory, but 16 only in pairs."""
    pairs = inputs.device.type == "cpu" and all(tensor.dtype == torch.bfloat16 for tensor in inputs.tensors)
    if pairs and inputs.columns <= 1 << 15:
        return (torch.int16,)
    return (torch.uint8, torch.uint8) if inputs.columns <= 1 << 16 else (torch.int32,)


def _largest_first(bits: Tensor) -> Tensor:
    """Columns of every row by descending size, equal ones in order; sizes and columns are sorted as one number."""
    packed = (bits ^ MAGNITUDE).long().bitwise_left_shift_(32)
    packed.add_(torch.arange(packed.shape[1], device=packed.device))
    if packed.device.type == "cpu":
        packed.numpy().sort(axis=1)
    else:
        packed = torch.sort(packed, dim=1).values
    return packed.bitwise_and_(MAGNITUDE)
