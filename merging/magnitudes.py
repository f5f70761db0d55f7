"""The order of the magnitudes of a task vector, from which the threshold of any density is read at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from merging.kernels import BLOCK, Block, Inputs

#: The top bits of a float32 magnitude: sign (always 0), exponent and seven bits of mantissa.
KEY_BITS = 16
#: Bytes per element that sorting takes: keys, the order in 64 bits and in 32.
ORDER_BYTES = 14
#: Flips the top bit, so that a signed comparison orders 32-bit words as unsigned ones.
UNSIGNED = -(1 << 31)


@dataclass(frozen=True, slots=True)
class MagnitudeCut:
    """Which elements of a tensor are among its k largest: those above a magnitude, and the first ones equal to it.

    Attributes:
        magnitude: the k-th largest |D|.
        last: index of the last element of exactly that magnitude that is kept.
    """

    magnitude: float
    last: int


#: The cuts at density 1 and 0.
KEEP_ALL, KEEP_NONE = MagnitudeCut(-1.0, 0), MagnitudeCut(math.inf, 0)


def kept(block: Block, delta: Tensor, number: int, word: int) -> Tensor:
    """Float32 ones where a block of the task vector is kept by a cut, zeros elsewhere.

    Args:
        block: of an indexed step.
        delta: (n,) the task vector.
        number: where among the block's numbers the cut's magnitude stands.
        word: where among its words the cut's `last` stands.
    """
    assert block.index is not None
    size, cut = delta.abs(), block.numbers[number]
    early = (block.index ^ UNSIGNED) <= (block.words[word] ^ UNSIGNED)
    return ((size > cut) | ((size == cut) & early)).to(torch.float32)


def magnitude_cut(inputs: Inputs, position: int, density: float) -> MagnitudeCut:
    """The cut that keeps exactly k = max(1, int(density * n)) elements of a source's task vector.

    Elements of equal magnitude are kept in the order of their index.
    """
    if density >= 1.0:
        return KEEP_ALL
    if density <= 0.0:
        return KEEP_NONE
    return cut_at(inputs, position, max(1, int(density * inputs.elements)))


def cut_at(inputs: Inputs, position: int, count: int) -> MagnitudeCut:
    """The cut that keeps exactly `count` elements, 1 <= count <= n."""
    order, starts = _ordered(inputs, position)
    rank = inputs.elements - count
    bucket = int(torch.searchsorted(starts, rank, right=True)) - 1
    start, stop = int(starts[bucket]), int(starts[bucket + 1])
    members = order[start:stop].long()
    sizes = _magnitudes_at(inputs, position, members)
    smallest = _kth_smallest(sizes, rank - start)
    ties = count - (inputs.elements - stop) - int(torch.count_nonzero(sizes > smallest))
    equal = members[sizes == smallest]
    return MagnitudeCut(smallest, int(equal[ties - 1]))


def _ordered(inputs: Inputs, position: int) -> tuple[Tensor, Tensor]:
    """Indices grouped by the top bits of their magnitude, and where each group begins (one more for the end)."""
    assert inputs.base is not None
    key = ("magnitude order", inputs.content[position], inputs.content[inputs.base])
    order, starts = inputs.statistics.tensors(key, lambda: _order(inputs, position))
    return order, starts


def _order(inputs: Inputs, position: int) -> tuple[Tensor, Tensor]:
    keys = torch.empty(inputs.elements, dtype=torch.int16, device=inputs.device)
    for start in range(0, inputs.elements, BLOCK):
        stop = min(start + BLOCK, inputs.elements)
        keys[start:stop] = inputs.delta(position, start, stop).abs_().view(torch.int32) >> KEY_BITS
    if keys.device.type == "cpu":
        # numpy sorts 16-bit keys digit by digit, several times faster than torch compares them.
        order = torch.from_numpy(np.argsort(keys.numpy(), kind="stable").astype(np.int32))
    else:
        order = torch.sort(keys, stable=True).indices.int()
    counts = torch.bincount(keys, minlength=1 << KEY_BITS - 1).cpu()
    return order, torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def _magnitudes_at(inputs: Inputs, position: int, members: Tensor) -> Tensor:
    """|M - B| of some elements, float32."""
    assert inputs.base is not None
    return (inputs.tensors[position][members].float() - inputs.tensors[inputs.base][members].float()).abs_()


def _kth_smallest(sizes: Tensor, rank: int) -> float:
    """A selection, so any algorithm gives the same."""
    if sizes.device.type == "cpu":
        return float(np.partition(sizes.numpy(), rank)[rank])  # ten times faster than torch's own selection
    return float(torch.kthvalue(sizes, rank + 1).values)
