"""Arcee Fusion: take from another model only the changes that stand out.

Source: Arcee's fusion method, as mergekit has it.

    I   = |M - B| * KL(softmax(M) || softmax(B)), the divergence taken over each row
    q_1, q_2, q_3 = the values of I at places int(n/4), int(n/2), int(3n/4) (of n - 1) of its ascending order
    out = M where I >= q_2 + 1.5 (q_3 - q_1), else B

Where all of I is equal (single columns, for one, have no divergence) everything is taken.

Differs from mergekit: the quartiles are those of the whole tensor (there, of a random sample of 1,000,000 elements
where it has more, so that the result depends on the generator's state). The divergence is taken in float64, where the
difference of two nearly equal rows is not lost to rounding, and without the 1e-8 that is added to the shares.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import BLOCK, Block, Inputs, Method, Step
from merging.rows import sums


def kernel(inputs: Inputs) -> Step:
    """The rows' divergence and the threshold; neither depends on the candidate."""
    assert inputs.base is not None
    key = ("fusion", inputs.content[inputs.others[0]], inputs.content[inputs.base], inputs.shape)
    (divergence,) = inputs.statistics.tensors((*key, "divergence"), lambda: (_divergence(inputs),))
    threshold = float(inputs.statistics.number((*key, "threshold"), lambda: _threshold(inputs, divergence)))
    return Step(fused, (threshold,), fields=(divergence,))


def fused(block: Block) -> Tensor:
    """Formula: the field is the divergence, the number the threshold."""
    (delta,), (divergence,) = block.deltas(), block.fields
    return torch.where(delta.abs() * divergence >= block.numbers[0], block.others[0], block.base)


def _divergence(inputs: Inputs) -> Tensor:
    """KL(softmax(M) || softmax(B)) of every row, float32, in the shape of a field."""
    model, base = inputs.others[0], inputs.base
    assert base is not None
    columns, where = inputs.columns, inputs.device

    def shares(position: int) -> Tensor:
        """log of the sum of exp(M) of every row, less its largest element, which is added again."""
        top = inputs.tensors[position].view(-1, columns).amax(dim=1).double()

        def terms(start: int, stop: int) -> Tensor:
            row = torch.arange(start, stop, device=where) // columns
            return (inputs.block(position, start, stop).double() - top[row]).exp()

        return (sums(inputs, "rows", terms).flatten().log() + top).contiguous()

    ours, theirs = shares(model), shares(base)

    def terms(start: int, stop: int) -> Tensor:
        row = torch.arange(start, stop, device=where) // columns
        one = inputs.block(model, start, stop).double() - ours[row]
        return one.exp() * (one - (inputs.block(base, start, stop).double() - theirs[row]))

    # Rounding may leave less than the zero that is the least divergence there is.
    return sums(inputs, "rows", terms).clamp(min=0.0).float()


def _threshold(inputs: Inputs, divergence: Tensor) -> float:
    """q_2 + 1.5 (q_3 - q_1), each of them an element of I."""
    importance = torch.empty(inputs.elements, dtype=torch.float32, device=inputs.device)
    rows = divergence.reshape(-1)
    for start in range(0, inputs.elements, BLOCK):
        stop = min(start + BLOCK, inputs.elements)
        row = torch.arange(start, stop, device=inputs.device) // inputs.columns
        importance[start:stop] = inputs.delta(inputs.others[0], start, stop).abs_() * rows[row]
    ranks = [(inputs.elements - 1) * quarter // 4 for quarter in (1, 2, 3)]
    low, middle, high = _at_ranks(importance, ranks)
    return middle + 1.5 * (high - low)


def _at_ranks(values: Tensor, ranks: list[int]) -> list[float]:
    """The values at some places of the ascending order; a selection, so any algorithm gives the same."""
    if values.device.type == "cpu":
        found = np.partition(values.numpy(), ranks)
        return [float(found[rank]) for rank in ranks]
    return [float(torch.kthvalue(values, rank + 1).values) for rank in ranks]


METHOD = Method(
    info=MethodInfo(
        name="arcee_fusion",
        summary="Takes from one source the changes that stand out, by size and by divergence of their row.",
        needs_base=True,
        max_sources=1,
        elementwise=False,
        idempotent=False,
    ),
    kernel=kernel,
    scratch=8,
)
