"""Where the changes of several sources meet (RAM, arXiv 2601.13572), shared by the methods that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.params import FloatParam
from merging.kernels import BLOCK, Inputs
from merging.masks import chosen, sizes
from merging.scalars import value

EPSILON = FloatParam(
    name="epsilon",
    default=1e-5,
    low=0.0,
    search_low=1e-6,
    search_high=1e-3,
    log=True,
    searched=False,
    about="changes up to this size count as none",
)


def epsilon_word(inputs: Inputs) -> int:
    """The bits of epsilon in float32, the word of `active`."""
    return int(np.float32(value(inputs.number("epsilon"))).view(np.int32))


def active(deltas: Sequence[Tensor], epsilon: Tensor | int) -> tuple[list[Tensor], Tensor]:
    """The changes that count, zero where they do not, and how many count at each element; int32."""
    masks = [(epsilon - sizes(delta)).bitwise_right_shift_(31) for delta in deltas]
    total = masks[0] + masks[1] if len(masks) > 1 else masks[0].clone()
    for mask in masks[2:]:
        total += mask
    return [chosen(delta, mask) for delta, mask in zip(deltas, masks, strict=True)], total.neg_()


def mean(parts: Sequence[Tensor], count: Tensor) -> Tensor:
    """The sum of the parts over how many there are, over 1 where there is none; fresh."""
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()
    for part in parts[2:]:
        total += part
    return total.div_(count.clamp_min(1).to(total.dtype))


def shares(inputs: Inputs) -> list[tuple[int, int]]:
    """Of every source, how many of its changes are met by another's, and how many are its alone; counted once."""
    epsilon = epsilon_word(inputs)
    key = ("overlaps", inputs.base, inputs.content, epsilon)

    def counted() -> list[tuple[int, int]]:
        found = np.zeros((len(inputs.others), 2), dtype=np.int64)
        for start in range(0, inputs.elements, BLOCK):
            stop = min(start + BLOCK, inputs.elements)
            parts, count = active([inputs.delta(position, start, stop) for position in inputs.others], epsilon)
            for place, part in enumerate(parts):
                own = part != 0.0
                found[place] += [int(torch.count_nonzero(own & each)) for each in (count > 1, count == 1)]
        return [(int(shared), int(alone)) for shared, alone in found]

    counted_shares: list[tuple[int, int]] = inputs.statistics.number(key, counted)
    return counted_shares
