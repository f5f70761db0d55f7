"""DELLA without election: drop small changes more often than large ones, scale up the rest, add up.

Paper: DELLA-Merging (arXiv 2406.11617), section 3.

    D_i = M_i - B;  S(D) as in `della`
    out = B + lambda * sum_i w_i S(D_i) / (sum_i w_i if normalize else 1)

Differs from the paper and from mergekit: see `della`. The combination is mergekit's.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step
from merging.rank_dropping import EPSILON, RESCALE_RANKED, dropped_by_rank, dropping_by_rank, growth
from merging.ranks import RANK_BYTES
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import added_up, adding, farthest


def kernel(inputs: Inputs) -> Step:
    """Drop by rank, rescale, add up."""
    weights = inputs.numbers("weight")
    chances, words, fields, thinning = dropping_by_rank(inputs)
    peak = farthest(inputs, growth(chances, thinning))
    last, ending = adding(inputs, weights)
    return Step(merged, (*weights, *chances, *last), words, {**thinning, **ending}, fields, indexed=True, peak=peak)


def merged(block: Block, *, each: bool, realised: bool, divide: bool, factor: bool) -> Tensor:
    """Formula: numbers are the weights, those of `dropped_by_rank` and those of `added_up`; fields the ranks."""
    return added_up(block, dropped_by_rank(block, each=each, realised=realised), divide=divide, factor=factor)


METHOD = Method(
    info=MethodInfo(
        name="della_linear",
        summary="Random drop by rank and rescale, then addition (DELLA).",
        needs_base=True,
        random=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, EPSILON, LAMBDA, normalize(default=False), RESCALE_RANKED),
    ),
    kernel=kernel,
    fields=RANK_BYTES,
)
