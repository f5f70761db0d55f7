"""TIES: trim small changes, elect one sign per weight, merge what agrees with it.

Paper: TIES-Merging (arXiv 2306.01708), section 4.

    D_i = M_i - B;  S(D) keeps the k = max(1, int(density * n)) entries of largest magnitude, equal ones by index
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the paper: the k are taken per tensor, signs are elected on weighted task vectors, and an even vote goes to
+1. `elect: unweighted` elects as the paper does; its code gives an even vote to the sign that won most often in
the whole model. mergekit's rule is the default here; density 0 is allowed and gives the base. `rescale` (`l1`, `l2`,
`inv_density`) scales up what is kept, which the paper does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step
from merging.magnitudes import ORDER_BYTES, Cut, changes, cut_at, largest, share, within
from merging.masks import chosen
from merging.scaling import RESCALE_TRIMMED, Kept, trimmed_factor
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import ELECT, elected, electing


def kernel(inputs: Inputs) -> Step:
    """Trim, elect, merge."""
    densities, rescaled = inputs.values("density"), inputs.flag("rescale") != "none"
    cuts = [
        cut_at(changes(inputs, position), share(inputs.elements, density))
        for position, density in zip(inputs.others, densities, strict=True)
    ]
    sources = zip(inputs.others, densities, cuts, strict=True) if rescaled else ()
    factors = [trimmed_factor(inputs, position, density, _trimmed(cut)) for position, density, cut in sources]
    last, flags = electing(inputs)
    words = tuple(word for cut in cuts for word in cut.words)
    numbers = (*inputs.numbers("weight"), *factors, *last)
    return Step(merged, numbers, words, {"rescaled": rescaled, **flags}, indexed=True)


def merged(block: Block, *, rescaled: bool, **flags: Any) -> Tensor:
    """Formula: numbers are the weights, the factors under `rescaled`, and lambda; words those of the cuts."""
    count = len(block.others)
    trimmed = [chosen(delta, within(block, delta, 2 * i)) for i, delta in enumerate(block.deltas())]
    if rescaled:
        for part, factor in zip(trimmed, block.numbers[count : 2 * count], strict=True):
            part.mul_(factor)
    return elected(block, trimmed, **flags)


def _trimmed(cut: Cut) -> Kept:
    def kept(delta: Tensor, start: int, stop: int) -> Tensor:
        index = torch.arange(start, stop, dtype=torch.int32, device=delta.device)
        return chosen(delta, largest(delta, index, cut.bits, cut.until))

    return kept


METHOD = Method(
    info=MethodInfo(
        name="ties",
        summary="Trim by magnitude, elect signs, merge what agrees (TIES).",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, LAMBDA, normalize(default=True), ELECT, RESCALE_TRIMMED),
    ),
    kernel=kernel,
    scratch=ORDER_BYTES,
)
