"""Arithmetic shared by the methods that thin out task vectors and elect signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from merging.kernels import BLOCK, Inputs


@dataclass(frozen=True, slots=True)
class MagnitudeCut:
    """Which elements of a tensor are among its k largest: those above a magnitude, and the first ones equal to it.

    Attributes:
        magnitude: the k-th largest |D|.
        last: index of the last element of exactly that magnitude that is kept.
    """

    magnitude: float
    last: int

    def apply(self, delta: torch.Tensor, start: int) -> torch.Tensor:
        """Zero the others in place; `delta` begins at element `start`."""
        size = delta.abs()
        # The elements up to `whole` keep their ties, the ones behind lose them.
        whole = min(max(self.last + 1 - start, 0), delta.numel())
        torch.ge(size[:whole], self.magnitude, out=size[:whole])
        torch.gt(size[whole:], self.magnitude, out=size[whole:])
        return delta.mul_(size)


@dataclass(frozen=True, slots=True)
class KeepAll:
    """The cut at density 1."""

    def apply(self, delta: torch.Tensor, start: int) -> torch.Tensor:
        """Leave everything."""
        return delta


@dataclass(frozen=True, slots=True)
class KeepNone:
    """The cut at density 0."""

    def apply(self, delta: torch.Tensor, start: int) -> torch.Tensor:
        """Zero everything in place."""
        return delta.zero_()


def magnitude_cut(inputs: Inputs, position: int, density: float) -> MagnitudeCut | KeepAll | KeepNone:
    """The cut that keeps exactly k = max(1, int(density * n)) elements of a source's task vector.

    Elements of equal magnitude are kept in the order of their index.
    """
    if density >= 1.0:
        return KeepAll()
    if density <= 0.0:
        return KeepNone()
    sizes = _magnitudes(inputs, position)
    keep = max(1, int(density * sizes.numel()))
    smallest = _kth_largest(sizes, keep)
    ties = keep - int(torch.count_nonzero(sizes > smallest))
    equal = torch.nonzero(sizes == smallest).view(-1)
    return MagnitudeCut(smallest, int(equal[ties - 1]))


def _magnitudes(inputs: Inputs, position: int) -> torch.Tensor:
    """|M - B| of a whole tensor, float32."""
    sizes = torch.empty(inputs.elements, dtype=torch.float32, device=inputs.tensors[0].device)
    for start in range(0, inputs.elements, BLOCK):
        stop = min(start + BLOCK, inputs.elements)
        part = sizes[start:stop]
        torch.sub(inputs.block(position, start, stop), inputs.base_block(start, stop), out=part).abs_()
    return sizes


def _kth_largest(sizes: torch.Tensor, k: int) -> float:
    """The k-th largest value: a selection, so any algorithm gives the same."""
    rank = sizes.numel() - k
    if sizes.device.type == "cpu":
        return float(np.partition(sizes.numpy(), rank)[rank])  # ten times faster than torch's own selection
    return float(torch.kthvalue(sizes, rank + 1).values)


def elect(weighted: Sequence[torch.Tensor], weights: Sequence[float], normalize: bool) -> torch.Tensor:
    """The sum of what agrees with the elected sign (TIES, section 4.2 and 4.3).

    s = +1 where sum_i w_i D_i >= 0 else -1; out = sum of the w_i D_i whose sign is s, divided under `normalize` by the
    sum of their weights (1 where nothing agrees).

    Args:
        weighted: the w_i D_i, shape (n,) each; overwritten.
        weights: the w_i.
        normalize: whether to divide.
    """
    sign = weighted[0].clone()
    for tensor in weighted[1:]:
        sign += tensor
    torch.ge(sign, 0.0, out=sign).mul_(2.0).sub_(1.0)
    merged, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    agrees = torch.empty_like(sign)
    for tensor, weight in zip(weighted, weights, strict=True):
        # Multiplying by the sign leaves positive what agrees; zeros never do.
        torch.gt(torch.mul(tensor, sign, out=agrees), 0.0, out=agrees)
        merged += tensor.mul_(agrees)
        divisor += agrees.mul_(weight)
    if normalize:
        torch.eq(divisor, 0.0, out=agrees)
        merged /= divisor.add_(agrees)
    return merged
