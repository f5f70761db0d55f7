"""TIES: trim small changes, elect one sign per weight, merge what agrees with it.

Paper: TIES-Merging (arXiv 2306.01708), section 4.

    D_i = M_i - B;  S(D) keeps the k = max(1, int(density * n)) entries of largest magnitude, equal ones by index
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the paper: the k are taken per tensor, not over the whole model; signs are elected on weighted task
vectors, and an even vote goes to +1. mergekit does the same; density 0 is allowed here and gives the base.
"""

from __future__ import annotations

import torch

from core.catalog import MethodInfo
from merging.kernels import Combine, Inputs, Method, scaled
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import elect, magnitude_cut


def kernel(inputs: Inputs) -> Combine:
    """Trim, elect, merge."""
    weights, factor, normalize = inputs.numbers("weight"), inputs.number("lambda"), bool(inputs.params["normalize"])
    densities = inputs.numbers("density")
    cuts = [magnitude_cut(inputs, p, density) for p, density in zip(inputs.others, densities, strict=True)]

    def combine(start: int, stop: int) -> torch.Tensor:
        trimmed = [cut.apply(delta, start) for cut, delta in zip(cuts, inputs.deltas(start, stop), strict=True)]
        weighted = [delta.mul_(weight) for delta, weight in zip(trimmed, weights, strict=True)]
        return scaled(elect(weighted, weights, normalize), factor).add_(inputs.base_block(start, stop))

    return combine


METHOD = Method(
    info=MethodInfo(
        name="ties",
        summary="Trim by magnitude, elect signs, merge what agrees (TIES).",
        needs_base=True,
        symmetric=True,
        params=(TASK_WEIGHT, DENSITY, LAMBDA, normalize(default=True)),
    ),
    kernel=kernel,
)
