"""Breadcrumbs with TIES: drop the largest and the smallest changes, elect signs, merge what agrees.

Papers: Model Breadcrumbs (arXiv 2312.06795), section 3; TIES-Merging (arXiv 2306.01708), sections 4.2 and 4.3.

    D_i = M_i - B;  S(D) as in `breadcrumbs`
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the papers and from mergekit: see `breadcrumbs` and `ties`. The combination is mergekit's.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step
from merging.outliers import GAMMA, OUTLIERS, kept_middle, middle
from merging.ranks import RANK_BYTES
from merging.scalars import value
from merging.scaling import RESCALE_TRIMMED
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import ELECT, elected, electing, farthest


def kernel(inputs: Inputs) -> Step:
    """Drop both ends, elect, merge."""
    factors, words, fields, thinning = middle(inputs)
    peak = farthest(inputs, max(map(value, factors), default=1.0))
    last, ending = electing(inputs)
    numbers = (*inputs.numbers("weight"), *factors, *last)
    return Step(merged, numbers, words, {**thinning, **ending}, fields, indexed=True, peak=peak)


def merged(block: Block, *, rows: bool, rescaled: bool, elect: str, normalize: bool, factor: bool) -> Tensor:
    """Formula: numbers are the weights, those of `kept_middle` and lambda."""
    thinned = kept_middle(block, rows=rows, rescaled=rescaled)
    return elected(block, thinned, elect=elect, normalize=normalize, factor=factor)


METHOD = Method(
    info=MethodInfo(
        name="breadcrumbs_ties",
        summary="Drop the largest and smallest changes, then sign election (Breadcrumbs with TIES).",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, GAMMA, LAMBDA, normalize(default=False), ELECT, OUTLIERS, RESCALE_TRIMMED),
    ),
    kernel=kernel,
    fields=RANK_BYTES,
)
