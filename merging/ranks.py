"""The rank of every element of a task vector within its row, by magnitude; taken once per source."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.kernels import BLOCK, Inputs
from merging.masks import MAGNITUDE, sizes

#: Bytes per element of the ranks while they are taken.
RANK_BYTES = 4


def row_ranks(inputs: Inputs, position: int) -> Tensor:
    """Ranks from 0, the smallest, to columns - 1: integers of the tensor's shape (int16, or int32 for long rows).

    Of equal magnitudes the first counts as the largest. A row runs along the last dimension; a 1-D tensor is one row.
    """
    assert inputs.base is not None
    key = ("row ranks", inputs.content[position], inputs.content[inputs.base], inputs.columns)
    (ranks,) = inputs.statistics.tensors(key, lambda: (_ranks(inputs, position),))
    return ranks.view(inputs.shape)


def _ranks(inputs: Inputs, position: int) -> Tensor:
    columns = inputs.columns
    kind = torch.int16 if columns <= 1 << 15 else torch.int32
    ranks = torch.empty(inputs.elements // columns, columns, dtype=kind, device=inputs.device)
    descending = torch.arange(columns - 1, -1, -1, dtype=kind, device=inputs.device)
    step = max(1, BLOCK // columns)
    for first in range(0, ranks.shape[0], step):
        part = ranks[first : first + step]
        start = first * columns
        bits = sizes(inputs.delta(position, start, start + part.numel())).view(part.shape)
        part.scatter_(1, _largest_first(bits), descending.expand(part.shape))
    return ranks


def _largest_first(bits: Tensor) -> Tensor:
    """Columns of every row by descending size, equal ones in order; sizes and columns are sorted as one number."""
    packed = (bits ^ MAGNITUDE).long().bitwise_left_shift_(32)
    packed.add_(torch.arange(packed.shape[1], device=packed.device))
    if packed.device.type == "cpu":
        packed.numpy().sort(axis=1)
    else:
        packed = torch.sort(packed, dim=1).values
    return packed.bitwise_and_(MAGNITUDE)
