"""The rank of every element of a task vector within its row, by magnitude; taken once per source."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.kernels import BLOCK, Inputs
from merging.masks import MAGNITUDE, sizes

#: Bytes per element (but for rows of more than 2^15 elements, which few tensors have).
RANK_BYTES = 2


def row_ranks(inputs: Inputs, position: int) -> Tensor:
    """Ranks from 0, the smallest, to columns - 1.

    Of equal magnitudes the first counts as the largest. A row runs along the last dimension; a 1-D tensor is one row.

    Returns:
        int16 of the tensor's shape; int32 where rows are long.
    """
    assert inputs.base is not None
    key = ("row ranks", inputs.content[position], inputs.content[inputs.base], inputs.columns)
    beside = inputs.tensors[position], inputs.tensors[inputs.base]
    kinds = (torch.int16 if inputs.columns <= 1 << 15 else torch.int32,)
    (ranks,) = inputs.statistics.rows(key, beside, inputs.shape, kinds, lambda found: _fill(found[0], inputs, position))
    return ranks


def _fill(ranks: Tensor, inputs: Inputs, position: int) -> None:
    columns, ranks = inputs.columns, ranks.view(-1, inputs.columns)
    descending = torch.arange(columns - 1, -1, -1, dtype=ranks.dtype, device=inputs.device)
    step = max(1, BLOCK // columns)
    for first in range(0, ranks.shape[0], step):
        part, start = ranks[first : first + step], first * columns
        bits = sizes(inputs.delta(position, start, start + part.numel())).view(part.shape)
        part.scatter_(1, _largest_first(bits), descending.expand(part.shape))


def _largest_first(bits: Tensor) -> Tensor:
    """Columns of every row by descending size, equal ones in order; sizes and columns are sorted as one number."""
    packed = (bits ^ MAGNITUDE).long().bitwise_left_shift_(32)
    packed.add_(torch.arange(packed.shape[1], device=packed.device))
    if packed.device.type == "cpu":
        packed.numpy().sort(axis=1)
    else:
        packed = torch.sort(packed, dim=1).values
    return packed.bitwise_and_(MAGNITUDE)
