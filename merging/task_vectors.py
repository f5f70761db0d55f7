"""Sign election, shared by the methods that merge what agrees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def elect(weighted: Sequence[Tensor], weights: Sequence[Tensor], normalize: bool) -> Tensor:
    """The sum of what agrees with the elected sign (TIES, section 4.2 and 4.3).

    s = +1 where sum_i w_i D_i >= 0 else -1; out = sum of the w_i D_i whose sign is s, divided under `normalize` by the
    sum of their weights (1 where nothing agrees).

    Args:
        weighted: the w_i D_i, shape (n,) each.
        weights: the w_i.
        normalize: whether to divide.
    """
    sign = weighted[0]
    for tensor in weighted[1:]:
        sign = sign + tensor
    return agreeing(weighted, weights, sign, normalize)


def agreeing(weighted: Sequence[Tensor], weights: Sequence[Tensor], sign: Tensor, normalize: bool) -> Tensor:
    """As `elect`, with s = +1 where `sign` is not negative."""
    sign = torch.ge(sign, 0.0).to(sign.dtype) * 2.0 - 1.0
    merged, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for tensor, weight in zip(weighted, weights, strict=True):
        # Multiplying by the sign leaves positive what agrees; zeros never do.
        agrees = (tensor * sign > 0.0).to(sign.dtype)
        merged = merged + tensor * agrees
        divisor = divisor + agrees * weight
    if not normalize:
        return merged
    return merged / (divisor + (divisor == 0.0).to(sign.dtype))
