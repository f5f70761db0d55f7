"""Robust normalisation: x = (w - median) / (IQR / 1.349), then sign(x) log(1 + |x|) for heavy tails; and back.

The furthest values are outlier channels, which a network leans on: they are frozen, seen by nobody, and stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: The interquartile range of N(0, 1).
IQR = 1.349
#: Values that quartiles are taken of; more are thinned out evenly.
LOOKED_AT = 1 << 22
#: Spreads below this share of the median, or this size, are rounding and no spread.
SMALLEST_SHARE, SMALLEST = 1e-4, 1e-8


@dataclass(frozen=True, slots=True)
class Scaling:
    """One tensor's constants: float32 numbers, exactly."""

    centre: float
    spread: float

    def apply(self, values: Tensor) -> Tensor:
        """Normalised values; any shape, fresh."""
        scaled = (values - self.centre).div_(self.spread)
        return scaled.abs().log1p_().mul_(scaled.sign_())

    def undo(self, scaled: Tensor) -> Tensor:
        """Values; any shape, fresh."""
        return scaled.abs().expm1_().mul_(scaled.sign()).mul_(self.spread).add_(self.centre)


def scaling_of(values: Tensor) -> Scaling:
    """The constants of a tensor's values (of all sources, one after another); float32, (n,)."""
    thinned = values[:: max(1, values.numel() // LOOKED_AT)].float().sort().values
    low, centre, high = (float(thinned[place_of(thinned.numel(), share)]) for share in (0.25, 0.5, 0.75))
    spread = (high - low) / IQR
    if not spread > max(SMALLEST_SHARE * abs(centre), SMALLEST):
        spread = float(thinned.double().sub_(centre).square_().mean().sqrt_())
    spread = max(spread, SMALLEST_SHARE * abs(centre), SMALLEST)
    return Scaling(_single(centre), _single(spread))


def place_of(count: int, share: float) -> int:
    """The nearest rank of a quantile."""
    return min(count - 1, math.floor(share * (count - 1) + 0.5))


def frozen(values: Tensor, scaling: Scaling, share: float) -> Tensor:
    """Indices of the values furthest from the centre, sorted: int32. Equal ones count from the first."""
    wanted = int(share * values.numel())
    distance = (values - scaling.centre).abs_()
    order = distance.sort(descending=True, stable=True).indices[:wanted]
    return order.sort().values.to(torch.int32)


def _single(number: float) -> float:
    return float(torch.tensor(number, dtype=torch.float32))
