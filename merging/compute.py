"""From a plan to its tensor: float32 arithmetic block by block, one rounding at the end."""

from __future__ import annotations

import math

import torch

from core.errors import NonFiniteWeightsError
from merging.kernels import BLOCK, Inputs
from merging.methods import method_of
from merging.plan import Leaf, TensorPlan
from merging.sources import Parents, is_finite


@torch.no_grad()
def compute(
    planned: TensorPlan, parents: Parents, *, out: torch.Tensor | None = None, keep: bool = True
) -> torch.Tensor:
    """The planned tensor, on the parents' device, in its save dtype.

    Args:
        planned: what to compute.
        parents: where its leaves lie.
        out: contiguous memory to write to, of the plan's shape and dtype; must not be a parent's tensor.
        keep: whether the parents may hold on to the tensors read for it.

    Raises:
        NonFiniteWeightsError: the result holds NaN or infinity; names the tensor.
        NonFiniteCheckpointError: a parent's tensor does.
    """
    tensors = [_source(source, parents, keep) for source in planned.sources]
    if out is None:
        out = torch.empty(planned.shape, dtype=planned.dtype, device=parents.device)
    if planned.copies:
        out.copy_(tensors[0])
    else:
        _combine(planned, tensors, out.view(-1))
    if not is_finite(out):
        raise NonFiniteWeightsError(
            f"built weights must be finite, but tensor {planned.name!r} is not: take smaller weights or a wider dtype",
            where=planned.name,
        )
    return out


def _source(source: Leaf | TensorPlan, parents: Parents, keep: bool) -> torch.Tensor:
    if isinstance(source, Leaf):
        return parents.tensor(source.digest, source.name, keep=keep)
    return compute(source, parents, keep=keep)


def _combine(planned: TensorPlan, tensors: list[torch.Tensor], out: torch.Tensor) -> None:
    """Write the kernel's result, scaled and rounded, into the flat `out`."""
    inputs = Inputs(
        tensors=tuple(tensor.reshape(-1) for tensor in tensors),
        base=planned.base,
        params=planned.params,
        source_params=planned.source_params,
        keys=planned.keys,
    )
    combine = method_of(planned.method).kernel(inputs)
    for start in range(0, inputs.elements, BLOCK):
        stop = min(start + BLOCK, inputs.elements)
        result = combine(start, stop)
        out[start:stop] = result if planned.scale == 1.0 else result * planned.scale


def peak_bytes(planned: TensorPlan) -> int:
    """An upper bound on the memory `compute` takes for a plan, its leaves on the device included."""
    elements = math.prod(planned.shape)
    own = sum(
        elements * source.dtype.itemsize if isinstance(source, Leaf) else peak_bytes(source)
        for source in planned.sources
    )
    # The whole magnitude and its partition (methods that trim), the blocks of every source, their masks and sums.
    whole = 0 if planned.copies else 2 * 4 * elements
    blocks = 0 if planned.copies else 4 * min(elements, BLOCK) * (3 * len(planned.sources) + 4)
    return own + elements * planned.dtype.itemsize + whole + blocks
