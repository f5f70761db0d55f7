"""What of a tensor is generated: its values, or the norms of its rows, whose directions stay untouched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.generators import Parameterisation
from merging.rows import row_sums


def by_rows(parameterisation: Parameterisation, shape: Sequence[int]) -> bool:
    """Whether a tensor of this shape is described by the norms of its rows."""
    return parameterisation == "gain" and len(shape) > 1


def numel(parameterisation: Parameterisation, shape: Sequence[int]) -> int:
    """Values that describe a tensor of this shape."""
    total = 1
    for size in shape:
        total *= size
    return shape[0] if by_rows(parameterisation, shape) else total


def values_of(weight: Tensor, parameterisation: Parameterisation) -> Tensor:
    """What describes a tensor: float32, (n,); may be a view of it, so never write into it."""
    if by_rows(parameterisation, weight.shape):
        return row_norms(weight)
    return weight.reshape(-1).float()


def changed(weight: Tensor, values: Tensor, change: Tensor, parameterisation: Parameterisation) -> Tensor:
    """The tensor once its values v became v + change: float32, fresh.

    Args:
        weight: float32.
        values, change: (n,) float32, what described it and what is added.
    """
    if not by_rows(parameterisation, weight.shape):
        return weight + change.view(weight.shape)
    # A row of zeros has no direction to grow in, and stays.
    factor = torch.where(values > 0.0, change / values.clamp_min(1e-30), 0.0) + 1.0
    return weight * factor.view(-1, *(1,) * (weight.dim() - 1))


def row_norms(weight: Tensor) -> Tensor:
    """The norm of every row (along the first dimension), summed in float64 by fixed trees: float32, (rows,)."""
    flat = weight.reshape(-1)

    def terms(start: int, stop: int) -> Tensor:
        return flat[start:stop].double().square()

    return row_sums(weight.shape[0], flat.numel() // max(1, weight.shape[0]), terms).sqrt().float()
