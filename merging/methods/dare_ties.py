"""DARE with TIES: drop entries of every task vector at random, scale up the rest, elect signs, merge what agrees.

Papers: DARE (arXiv 2311.03099), section 3; TIES-Merging (arXiv 2306.01708), sections 4.2 and 4.3.

    D_i = M_i - B;  S(D) = r * D where u < density else 0
    r   = 1/density (`inv_density`), |D| / |kept D| in the L1 or L2 norm (`l1`, `l2`), 1/q (`q`) or 1 (`none`)
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the papers: u is a hash of (seed, source, tensor, index), so that a mask is the same on every worker and
grows with the density; `l1` is mergekit's rule; `q` is DAREx-q's (arXiv 2410.09344), q between the density and 1.
Density 1 changes nothing, density 0 gives the base.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from core.catalog import MethodInfo
from merging.dropping import RESCALE, Q, dropped, dropping
from merging.kernels import Block, Inputs, Method, Step
from merging.scalars import value
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import ELECT, elected, electing, farthest


def kernel(inputs: Inputs) -> Step:
    """Drop, rescale, elect, merge."""
    numbers, words = dropping(inputs)
    last, flags = electing(inputs)
    peak = farthest(inputs, max(map(value, numbers)))
    return Step(merged, (*inputs.numbers("weight"), *numbers, *last), words, flags, indexed=True, peak=peak)


def merged(block: Block, **flags: Any) -> Tensor:
    """Formula: numbers are the weights, those of `dropped` and lambda; words the masks' keys."""
    return elected(block, dropped(block), **flags)


METHOD = Method(
    info=MethodInfo(
        name="dare_ties",
        summary="Random drop and rescale, then sign election (DARE with TIES).",
        needs_base=True,
        random=True,
        symmetric=True,
        smooth=("weight", "q", "lambda"),
        params=(TASK_WEIGHT, DENSITY, LAMBDA, normalize(default=False), RESCALE, Q, ELECT),
    ),
    kernel=kernel,
)
