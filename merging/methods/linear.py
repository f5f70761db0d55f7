"""Linear: the weighted average of models, also called a model soup.

Paper: Model soups (arXiv 2203.05482), section 2.

    out = sum_i w_i M_i / (sum_i w_i if normalize else 1)

Differs from the paper: a soup has equal weights, here each source and layer has its own.
"""

from __future__ import annotations

import torch

from core.catalog import MethodInfo
from merging.kernels import Combine, Inputs, Method, divided, weighted_sum
from merging.specs import WEIGHT, normalize


def kernel(inputs: Inputs) -> Combine:
    """The weighted sum, divided once."""
    weights = inputs.numbers("weight")
    divisor = sum(weights) if inputs.params["normalize"] else 1.0

    def combine(start: int, stop: int) -> torch.Tensor:
        blocks = [inputs.block(position, start, stop) for position in inputs.others]
        return divided(weighted_sum(blocks, weights), divisor)

    return combine


METHOD = Method(
    info=MethodInfo(
        name="linear",
        summary="Weighted average.",
        needs_base=False,
        symmetric=True,
        params=(WEIGHT, normalize(default=True)),
    ),
    kernel=kernel,
)
