"""Choices per element in integer arithmetic: masks are int32, -1 where chosen and 0 elsewhere.

The bits of non-negative float32 numbers, read as integers, are ordered as the numbers are. Shifts and subtractions of
integers run at the speed of memory; comparisons that give booleans, and selections by them, are 4 to 40 times slower
where a formula runs as it stands, and no faster compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The magnitude of a float32, and the float32 one, as integers.
MAGNITUDE, ONE = 0x7FFFFFFF, 0x3F800000


def below(left: Tensor, right: Tensor | int) -> Tensor:
    """Where left < right: int32 of any shape whose difference does not overflow."""
    return (left - right).bitwise_right_shift_(31)


def chosen(values: Tensor, mask: Tensor) -> Tensor:
    """The values where the mask is set, zero elsewhere; fresh. `values` is float32 (or float64, in checks)."""
    if values.dtype == torch.float32 and not values.requires_grad:
        return (values.view(torch.int32) & mask).view(torch.float32)
    return values * -mask.to(values.dtype)


def sizes(values: Tensor) -> Tensor:
    """The bits of |values| in float32: int32, fresh."""
    return values.to(torch.float32).view(torch.int32) & MAGNITUDE


def agreeing(votes: Tensor, total: Tensor, *, zeros: bool) -> Tensor:
    """Where a vote has the sign of the total, a total of zero counting as positive.

    Args:
        votes, total: float32 (or float64, in checks). A total of -0.0 counts as negative, but votes only add up to
            that where all of them are zero.
        zeros: whether votes of zero may count as agreeing, which is cheaper where nothing hangs on it.
    """
    if votes.dtype != torch.float32:
        return -torch.gt(votes * torch.where(total >= 0.0, 1.0, -1.0), 0.0).to(torch.int32)
    turned = (votes.view(torch.int32) ^ total.view(torch.int32)).bitwise_not_()
    if not zeros:
        # A magnitude of zero stays below zero when 1 is taken off.
        turned.bitwise_and_((votes.view(torch.int32) & MAGNITUDE).sub_(1).bitwise_not_())
    return turned.bitwise_right_shift_(31)


def zero_as_one(values: Tensor) -> Tensor:
    """The values, with 1 in place of 0; may write into them."""
    plain = values.detach()
    if plain.dtype != torch.float32:
        return values + torch.eq(plain, 0.0).to(plain.dtype)
    zero = (plain.view(torch.int32) & MAGNITUDE).sub_(1).bitwise_right_shift_(31)
    return values.add_(zero.bitwise_and_(ONE).view(torch.float32))
