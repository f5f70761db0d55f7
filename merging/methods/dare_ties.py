"""DARE with TIES: drop entries of every task vector at random, scale up the rest, elect signs, merge what agrees.

Papers: DARE (arXiv 2311.03099), section 3; TIES-Merging (arXiv 2306.01708), sections 4.2 and 4.3.

    D_i = M_i - B;  S(D) = r * D where u < density else 0
    r   = 1/density (`inv_density`), |D|_1 / |kept D|_1 (`l1`) or 1 (`none`)
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the papers: u is a hash of (seed, source, tensor, index), so that a mask is the same on every worker and
grows with the density; `l1` is mergekit's rule. Density 1 changes nothing, density 0 gives the base.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.dropping import RESCALE, rescale_factor, word_pairs
from merging.kernels import Block, Inputs, Method, Step, is_one
from merging.randomness import threshold
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import elect


def kernel(inputs: Inputs) -> Step:
    """Drop, rescale, elect, merge."""
    weights, factor, densities = inputs.numbers("weight"), inputs.number("lambda"), inputs.values("density")
    rule = str(inputs.flag("rescale"))
    factors = [rescale_factor(rule, inputs, p, density) for p, density in zip(inputs.others, densities, strict=True)]
    return Step(
        merged,
        numbers=(*weights, *(threshold(density) for density in densities), *factors, factor),
        words=word_pairs(inputs),
        flags={"normalize": bool(inputs.flag("normalize")), "factor": not is_one(factor)},
        indexed=True,
    )


def merged(block: Block, *, normalize: bool, factor: bool) -> Tensor:
    """Formula: numbers are weights, thresholds of the masks, rescale factors and lambda; words the masks' keys."""
    count = len(block.others)
    weights = block.numbers[:count]
    weighted = [
        delta * block.kept(2 * i, count + i) * block.numbers[2 * count + i] * weights[i]
        for i, delta in enumerate(block.deltas())
    ]
    total = elect(weighted, weights, normalize)
    if factor:
        total = total * block.numbers[-1]
    return total + block.base


METHOD = Method(
    info=MethodInfo(
        name="dare_ties",
        summary="Random drop and rescale, then sign election (DARE with TIES).",
        needs_base=True,
        random=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(
            TASK_WEIGHT,
            DENSITY,
            LAMBDA,
            normalize(default=False),
            RESCALE,
        ),
    ),
    kernel=kernel,
)
