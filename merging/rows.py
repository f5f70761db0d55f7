"""Inner products of rows and of columns, with law 1's sums: fixed trees in float64, whatever device or block size.

A row is a stretch of the last dimension; a column takes one element of every slice of the first. 1-D tensors are one
row, and that row is their only column. Results are kept by content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from merging.kernels import Inputs
from merging.reductions import TREE

Axis = Literal["rows", "columns"]
#: Slices of the first dimension that one tree adds up.
SLICES = 64
#: Terms in memory at once; bounds the memory, does not change the result.
AT_ONCE = 1 << 19

#: Gives the float64 terms of a stretch of the flat tensor.
Terms = Callable[[int, int], Tensor]


def dots(inputs: Inputs, axis: Axis, left: int, right: int, *, deltas: bool) -> Tensor:
    """<M_l, M_r> of every row or column, or <D_l, D_r> of task vectors: float64, in the shape of a field.

    Args:
        inputs: the sources.
        axis: of what.
        left, right: positions of two sources.
        deltas: take the task vectors.
    """
    left, right = inputs.in_order(left, right)
    base = inputs.content[inputs.base] if deltas and inputs.base is not None else None
    key = ("dots", axis, inputs.content[left], inputs.content[right], base, inputs.shape)

    def block(position: int, start: int, stop: int) -> Tensor:
        return (inputs.delta if deltas else inputs.block)(position, start, stop).double()

    def terms(start: int, stop: int) -> Tensor:
        one = block(left, start, stop)
        return one * (one if left == right else block(right, start, stop))

    (found,) = inputs.statistics.tensors(key, lambda: (sums(inputs, axis, terms),))
    return found


def sums(inputs: Inputs, axis: Axis, terms: Terms) -> Tensor:
    """The sum of the terms over every row or column: float64, in the shape of a field."""
    shape = inputs.shape or (1,)
    if axis == "rows" or len(shape) == 1:
        return row_sums(inputs.elements // shape[-1], shape[-1], terms).reshape(*shape[:-1], 1)
    return _column_sums(shape[0], inputs.elements // shape[0], terms).reshape(1, *shape[1:])


def row_sums(rows: int, columns: int, terms: Terms) -> Tensor:
    """The sum of the terms over rows that lie one after another: float64, (rows,)."""
    found = []
    together = max(1, AT_ONCE // columns)
    for first in range(0, rows, together):
        last = min(first + together, rows)
        level = terms(first * columns, last * columns).view(last - first, columns)
        total = _halved(level[:, :TREE].T)
        for left in range(TREE, columns, TREE):
            total = total + _halved(level[:, left : left + TREE].T)
        found.append(total)
    return torch.cat(found)


def _column_sums(slices: int, columns: int, terms: Terms) -> Tensor:
    """(columns,)."""
    width = min(columns, AT_ONCE // SLICES)
    return torch.cat(
        [_column_sum(slices, columns, left, min(left + width, columns), terms) for left in range(0, columns, width)]
    )


def _column_sum(slices: int, columns: int, left: int, right: int, terms: Terms) -> Tensor:
    """(right - left,)."""
    total = None
    for first in range(0, slices, SLICES):
        last = min(first + SLICES, slices)
        if right - left == columns:
            level = terms(first * columns, last * columns).view(last - first, columns)
        else:
            level = torch.stack([terms(row * columns + left, row * columns + right) for row in range(first, last)])
        part = _halved(level)
        total = part if total is None else total + part
    assert total is not None
    return total


def _halved(level: Tensor) -> Tensor:
    """Sum over the first dimension: its later half is added to its earlier one again and again."""
    size = 1 << (level.shape[0] - 1).bit_length()
    while size > 1:
        half = size // 2
        # What lies beyond the end counts as zeros, which change nothing.
        beyond = level.shape[0] - half
        if beyond > 0:
            level = torch.cat([level[:beyond] + level[half:], level[beyond:half]])
        size = half
    return level[0]
