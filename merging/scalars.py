"""Scalar functions of the host, in float64: of plain floats, or of tensors where a derivative is wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from merging.kernels import Number


def sin(x: Number) -> Number:
    """The sine."""
    return torch.sin(x) if isinstance(x, Tensor) else math.sin(x)


def cos(x: Number) -> Number:
    """The cosine."""
    return torch.cos(x) if isinstance(x, Tensor) else math.cos(x)


def sqrt(x: Number) -> Number:
    """The square root."""
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def exp(x: Number) -> Number:
    """The exponential."""
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


def arccos(x: Number) -> Number:
    """The angle in [0, pi]; its derivative at -1 and 1 is infinite."""
    return torch.acos(x) if isinstance(x, Tensor) else math.acos(x)


def value(x: Number) -> float:
    """The plain number, for decisions that no derivative is taken through."""
    return float(x.detach()) if isinstance(x, Tensor) else x
