"""From a plan to its tensor: float32 arithmetic block by block, one rounding at the end."""

from __future__ import annotations

import math

import torch

from core.errors import NonFiniteWeightsError
from merging.blocks import run
from merging.kernels import BLOCK, Inputs
from merging.methods import method_of
from merging.plan import Leaf, TensorPlan
from merging.sources import Parents, is_finite
from merging.statistics import Statistics


@torch.no_grad()
def compute(
    planned: TensorPlan,
    parents: Parents,
    *,
    out: torch.Tensor | None = None,
    keep: bool = True,
    statistics: Statistics | None = None,
) -> torch.Tensor:
    """The planned tensor, on the parents' device, in its save dtype.

    Args:
        planned: what to compute.
        parents: where its leaves lie.
        out: contiguous memory to write to, of the plan's shape and dtype; must not be a parent's tensor.
        keep: whether the parents may hold on to the tensors read for it.
        statistics: what is known of its sources already, and takes in what is found out about them.

    Raises:
        NonFiniteWeightsError: the result holds NaN or infinity; names the tensor.
        NonFiniteCheckpointError: a parent's tensor does.
    """
    statistics = Statistics(keep_bytes=0) if statistics is None else statistics
    if planned.plain is not planned:
        return _adjusted(planned, compute(planned.plain, parents, keep=keep, statistics=statistics), out)
    tensors = [_source(source, parents, keep, statistics) for source in planned.sources]
    if out is None:
        out = torch.empty(planned.shape, dtype=planned.dtype, device=parents.device)
    if planned.copies:
        out.copy_(tensors[0])
    else:
        inputs = inputs_of(planned, tensors, statistics)
        run(method_of(planned.method).kernel(inputs), inputs, out.view(-1), planned.scale)
    return _finite(planned, out)


def _adjusted(planned: TensorPlan, plain: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """The float32 result with the factor on its part and the shift, rounded once; `plain` is overwritten."""
    part = planned.part
    if part is not None:
        index = torch.arange(plain.shape[part.axis], device=plain.device) % part.period < part.length
        factor = torch.where(index, part.scale, 1.0).to(torch.float32)
        plain.mul_(factor if part.axis == -1 else factor.view(-1, *(1,) * (plain.dim() - 1)))
    if planned.shift != 0.0:
        plain.add_(planned.shift)
    out = torch.empty(planned.shape, dtype=planned.dtype, device=plain.device) if out is None else out
    return _finite(planned, out.copy_(plain))


def _finite(planned: TensorPlan, out: torch.Tensor) -> torch.Tensor:
    if not is_finite(out):
        raise NonFiniteWeightsError(
            f"built weights must be finite, but tensor {planned.name!r} is not: take smaller weights or a wider dtype",
            where=planned.name,
        )
    return out


def _source(source: Leaf | TensorPlan, parents: Parents, keep: bool, statistics: Statistics) -> torch.Tensor:
    if isinstance(source, Leaf):
        return parents.tensor(source.digest, source.name, keep=keep)
    return compute(source, parents, keep=keep, statistics=statistics)


def inputs_of(planned: TensorPlan, tensors: list[torch.Tensor], statistics: Statistics) -> Inputs:
    """What the plan's kernel looks at."""
    return Inputs(
        tensors=tuple(tensor.reshape(-1) for tensor in tensors),
        shape=planned.shape,
        name=planned.name,
        base=planned.base,
        params=planned.params,
        source_params=planned.source_params,
        keys=planned.keys,
        content=tuple(source.key for source in planned.sources),
        statistics=statistics,
    )


def peak_bytes(planned: TensorPlan) -> int:
    """An upper bound on the memory `compute` takes for a plan, its leaves on the device included."""
    elements = math.prod(planned.shape)
    if planned.plain is not planned:
        return peak_bytes(planned.plain) + elements * planned.dtype.itemsize
    own = sum(
        elements * source.dtype.itemsize if isinstance(source, Leaf) else peak_bytes(source)
        for source in planned.sources
    )
    if planned.copies:
        return own + elements * planned.dtype.itemsize
    # The blocks of every source with what a formula makes of them, and small tables.
    blocks = 4 * min(elements, BLOCK) * (6 * len(planned.sources) + 8) + (1 << 20)
    return own + elements * (planned.dtype.itemsize + method_of(planned.method).scratch) + blocks
