"""DARE: drop entries of every task vector at random, scale up the rest, add up.

Paper: DARE (arXiv 2311.03099), section 3.

    D_i = M_i - B;  S(D) = r * D where u < density else 0
    r   = 1/density (`inv_density`), |D| / |kept D| in the L1 or L2 norm (`l1`, `l2`), 1/q (`q`) or 1 (`none`)
    out = B + lambda * sum_i w_i S(D_i) / (sum_i w_i if normalize else 1)

Differs from the paper: u is a hash of (seed, source, tensor, index), so that a mask is the same on every worker and
grows with the density; weights per source and layer. `l1` is mergekit's rule; `q` is DAREx-q's (arXiv 2410.09344), q
between the density and 1. Density 1 changes nothing, density 0 gives the base.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.dropping import RESCALE, Q, dropped, dropping
from merging.kernels import Block, Inputs, Method, Step
from merging.scalars import value
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import added_up, adding, farthest


def kernel(inputs: Inputs) -> Step:
    """Drop, rescale, add up."""
    weights = inputs.numbers("weight")
    numbers, words = dropping(inputs)
    last, flags = adding(inputs, weights)
    peak = farthest(inputs, max(map(value, numbers)))
    return Step(merged, (*weights, *numbers, *last), words, flags, indexed=True, peak=peak)


def merged(block: Block, *, divide: bool, factor: bool) -> Tensor:
    """Formula: numbers are the weights, those of `dropped` and those of `added_up`; words the masks' keys."""
    return added_up(block, dropped(block), divide=divide, factor=factor)


METHOD = Method(
    info=MethodInfo(
        name="dare_linear",
        summary="Random drop and rescale, then addition (DARE).",
        needs_base=True,
        random=True,
        symmetric=True,
        smooth=("weight", "q", "lambda"),
        params=(TASK_WEIGHT, DENSITY, LAMBDA, normalize(default=False), RESCALE, Q),
    ),
    kernel=kernel,
)
