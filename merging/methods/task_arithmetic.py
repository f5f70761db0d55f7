"""Task arithmetic: the base plus weighted task vectors.

Paper: Editing models with task arithmetic (arXiv 2212.04089), section 2.

    D_i = M_i - B
    out = B + lambda * sum_i w_i D_i / (sum_i w_i if normalize else 1)

Differs from the paper: one weight per source and layer, and an optional division by their sum (a sum below 1e-8 counts
as 1, as in mergekit).
"""

from __future__ import annotations

from core.catalog import MethodInfo
from merging.kernels import Inputs, Method, Step, delta_combination
from merging.specs import LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import adding


def kernel(inputs: Inputs) -> Step:
    """The weighted sum of the deltas on top of the base."""
    weights = inputs.numbers("weight")
    last, flags = adding(inputs, weights)
    return Step(delta_combination, (*weights, *last), flags=flags)


METHOD = Method(
    info=MethodInfo(
        name="task_arithmetic",
        summary="Base plus weighted task vectors.",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, LAMBDA, normalize(default=False)),
    ),
    kernel=kernel,
    by_values=True,
)
