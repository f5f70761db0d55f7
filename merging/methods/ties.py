"""TIES: trim small changes, elect one sign per weight, merge what agrees with it.

Paper: TIES-Merging (arXiv 2306.01708), section 4.

    D_i = M_i - B;  S(D) keeps the k = max(1, int(density * n)) entries of largest magnitude, equal ones by index
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the paper: the k are taken per tensor, not over the whole model; signs are elected on weighted task
vectors, and an even vote goes to +1. mergekit does the same; density 0 is allowed here and gives the base.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step, is_one
from merging.magnitudes import ORDER_BYTES, kept, magnitude_cut
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import elect


def kernel(inputs: Inputs) -> Step:
    """Trim, elect, merge."""
    weights, factor = inputs.numbers("weight"), inputs.number("lambda")
    cuts = [magnitude_cut(inputs, p, d) for p, d in zip(inputs.others, inputs.values("density"), strict=True)]
    return Step(
        merged,
        numbers=(*weights, *(cut.magnitude for cut in cuts), factor),
        words=tuple(cut.last for cut in cuts),
        flags={"normalize": bool(inputs.flag("normalize")), "factor": not is_one(factor)},
        indexed=True,
    )


def merged(block: Block, *, normalize: bool, factor: bool) -> Tensor:
    """Formula: numbers are weights, magnitudes of the cuts and lambda; words the cuts' last indices."""
    count = len(block.others)
    weights = block.numbers[:count]
    trimmed = [delta * kept(block, delta, count + i, i) for i, delta in enumerate(block.deltas())]
    total = elect([delta * weight for delta, weight in zip(trimmed, weights, strict=True)], weights, normalize)
    if factor:
        total = total * block.numbers[-1]
    return total + block.base


METHOD = Method(
    info=MethodInfo(
        name="ties",
        summary="Trim by magnitude, elect signs, merge what agrees (TIES).",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, LAMBDA, normalize(default=True)),
    ),
    kernel=kernel,
    scratch=ORDER_BYTES,
)
