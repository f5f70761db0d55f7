"""Task arithmetic: the base plus weighted task vectors.

Paper: Editing models with task arithmetic (arXiv 2212.04089), section 2.

    D_i = M_i - B
    out = B + lambda * sum_i w_i D_i / (sum_i w_i if normalize else 1)

Differs from the paper: one weight per source and layer, and an optional division by their sum (a sum below 1e-8 counts
as 1, as in mergekit).
"""

from __future__ import annotations

import torch

from core.catalog import MethodInfo
from merging.kernels import Combine, Inputs, Method, divided, scaled, weighted_sum
from merging.specs import LAMBDA, TASK_WEIGHT, normalize


def kernel(inputs: Inputs) -> Combine:
    """The weighted sum of the deltas on top of the base."""
    weights, factor = inputs.numbers("weight"), inputs.number("lambda")
    total = sum(weights)
    divisor = total if inputs.params["normalize"] and abs(total) >= 1e-8 else 1.0

    def combine(start: int, stop: int) -> torch.Tensor:
        merged = weighted_sum(inputs.deltas(start, stop), weights)
        return scaled(divided(merged, divisor), factor).add_(inputs.base_block(start, stop))

    return combine


METHOD = Method(
    info=MethodInfo(
        name="task_arithmetic",
        summary="Base plus weighted task vectors.",
        needs_base=True,
        symmetric=True,
        params=(TASK_WEIGHT, LAMBDA, normalize(default=False)),
    ),
    kernel=kernel,
)
