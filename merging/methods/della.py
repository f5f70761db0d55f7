"""DELLA: drop small changes more often than large ones, scale up the rest, elect signs, merge what agrees.

Paper: DELLA-Merging (arXiv 2406.11617), section 3; sign election as in TIES-Merging (arXiv 2306.01708).

    D_i = M_i - B;  the entry of rank r (0 the smallest) of a row of n has the chance
    p   = density - e + 2 e r / (n - 1),  e = min(epsilon, density, 1 - density)
    S(D) = D / p where u < p else 0  (`inv_density`; `l1`, `l2`: D times |D| / |kept D| in that norm; `none`: D)
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the paper: u is a hash of (seed, source, tensor, index), so that a mask is the same on every worker and
grows with the density; signs are elected on weighted task vectors (`elect: unweighted` elects on plain ones); the
paper's window size is 2 epsilon. Differs from mergekit: `l1` is its rule, not the default; an epsilon that reaches
below 0 or above 1 is made smaller instead of refused, so density 1 changes nothing and density 0 gives the base; the
only element of a row is kept with chance density; rows run along the last dimension of any tensor.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step
from merging.rank_dropping import EPSILON, RESCALE_RANKED, dropped_by_rank, dropping_by_rank, growth
from merging.ranks import RANK_BYTES
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import ELECT, elected, electing, farthest


def kernel(inputs: Inputs) -> Step:
    """Drop by rank, rescale, elect, merge."""
    chances, words, fields, thinning = dropping_by_rank(inputs)
    peak = farthest(inputs, growth(chances, thinning))
    last, ending = electing(inputs)
    numbers = (*inputs.numbers("weight"), *chances, *last)
    return Step(merged, numbers, words, {**thinning, **ending}, fields, indexed=True, peak=peak)


def merged(block: Block, *, each: bool, realised: bool, elect: str, normalize: bool, factor: bool) -> Tensor:
    """Formula: numbers are the weights, those of `dropped_by_rank` and lambda; fields the ranks."""
    thinned = dropped_by_rank(block, each=each, realised=realised)
    return elected(block, thinned, elect=elect, normalize=normalize, factor=factor)


METHOD = Method(
    info=MethodInfo(
        name="della",
        summary="Random drop by rank and rescale, then sign election (DELLA).",
        needs_base=True,
        random=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, EPSILON, LAMBDA, normalize(default=True), RESCALE_RANKED, ELECT),
    ),
    kernel=kernel,
    fields=RANK_BYTES,
)
