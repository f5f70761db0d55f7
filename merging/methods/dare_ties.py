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

import torch

from core.catalog import MethodInfo
from core.params import ChoiceParam
from merging.kernels import Combine, Inputs, Method, scaled
from merging.randomness import keep_mask
from merging.reductions import ordered_sum
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import elect


def kernel(inputs: Inputs) -> Combine:
    """Drop, rescale, elect, merge."""
    weights, factor, normalize = inputs.numbers("weight"), inputs.number("lambda"), bool(inputs.params["normalize"])
    densities = inputs.numbers("density")
    rule = str(inputs.params["rescale"])
    factors = [_rescale(rule, inputs, p, density) for p, density in zip(inputs.others, densities, strict=True)]

    def combine(start: int, stop: int) -> torch.Tensor:
        deltas = inputs.deltas(start, stop)
        weighted = [
            scaled(drop(inputs, p, delta, start, density), rescale).mul_(weight)
            for p, delta, density, rescale, weight in zip(
                inputs.others, deltas, densities, factors, weights, strict=True
            )
        ]
        return scaled(elect(weighted, weights, normalize), factor).add_(inputs.base_block(start, stop))

    return combine


def drop(inputs: Inputs, position: int, delta: torch.Tensor, start: int, density: float) -> torch.Tensor:
    """Zero the entries of a block of a task vector, in place, that the source's mask does not keep."""
    if density >= 1.0:
        return delta
    if density <= 0.0:
        return delta.zero_()
    return delta.mul_(keep_mask(inputs.keys[position], start, start + delta.numel(), density, delta.device))


def _rescale(rule: str, inputs: Inputs, position: int, density: float) -> float:
    """The factor on the entries that are kept; 1 where there is nothing to make up for."""
    if rule == "none" or not 0.0 < density < 1.0:
        return 1.0
    if rule == "inv_density":
        return 1.0 / density

    def delta(start: int, stop: int) -> torch.Tensor:
        return inputs.block(position, start, stop) - inputs.base_block(start, stop)

    def kept(start: int, stop: int) -> torch.Tensor:
        return drop(inputs, position, delta(start, stop), start, density)

    before = ordered_sum(inputs.elements, lambda start, stop: delta(start, stop).double().abs())
    after = ordered_sum(inputs.elements, lambda start, stop: kept(start, stop).double().abs())
    return before / after if after else 1.0


METHOD = Method(
    info=MethodInfo(
        name="dare_ties",
        summary="Random drop and rescale, then sign election (DARE with TIES).",
        needs_base=True,
        random=True,
        symmetric=True,
        params=(
            TASK_WEIGHT,
            DENSITY,
            LAMBDA,
            normalize(default=False),
            ChoiceParam(
                name="rescale",
                default="inv_density",
                choices=("inv_density", "l1", "none"),
                about="how kept entries are scaled up: 1/density (paper) or to the realised L1 norm (mergekit 0.1)",
            ),
        ),
    ),
    kernel=kernel,
)
