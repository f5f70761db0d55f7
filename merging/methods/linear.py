"""Linear: the weighted average of models, also called a model soup.

Paper: Model soups (arXiv 2203.05482), section 2.

    out = sum_i w_i M_i / (sum_i w_i if normalize else 1)

Differs from the paper: a soup has equal weights (the default here, the uniform soup); each source and layer may have
its own. Two sources with weights 1 - a and a are WiSE-FT (arXiv 2109.01903), the line from a model to its fine-tune.
"""

from __future__ import annotations

from core.catalog import MethodInfo
from merging.kernels import Inputs, Method, Step, combination, is_one
from merging.specs import WEIGHT, normalize


def kernel(inputs: Inputs) -> Step:
    """The weighted sum, divided once."""
    weights = inputs.numbers("weight")
    total = sum(weights) if inputs.flag("normalize") else 1.0
    if is_one(total):
        return Step(combination, tuple(weights))
    return Step(combination, (*weights, total), flags={"divide": True})


METHOD = Method(
    info=MethodInfo(
        name="linear",
        summary="Weighted average (uniform soup, WiSE-FT).",
        needs_base=False,
        symmetric=True,
        smooth=("weight",),
        params=(WEIGHT, normalize(default=True, divides=True)),
    ),
    kernel=kernel,
    by_values=True,
)
