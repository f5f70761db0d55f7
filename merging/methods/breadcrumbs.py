"""Breadcrumbs: drop the largest and the smallest changes, add up what lies in between.

Paper: Model Breadcrumbs (arXiv 2312.06795), section 3.

    D_i = M_i - B;  of its n entries, S(D) drops the t = min(int(gamma * n), n - k) of largest magnitude, then keeps the
    k = max(1, int(density * n)) largest of the rest, equal ones by index
    out = B + lambda * sum_i w_i S(D_i) / (sum_i w_i if normalize else 1)

Differs from the paper: density is the share of all entries that is kept, as in mergekit, not the share of those left
after the largest are gone; the entries are those of the tensor (`outliers: row` takes each row by itself, along the
last dimension, as the paper's code does); weights per source and layer. Differs from mergekit: a density above 0 keeps
at least one entry. Where density and gamma exceed 1 together, gamma gives way, so density 1 keeps everything; density
0 gives the base.
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
from merging.task_vectors import added_up, adding, farthest


def kernel(inputs: Inputs) -> Step:
    """Drop both ends, add up."""
    weights = inputs.numbers("weight")
    factors, words, fields, thinning = middle(inputs)
    peak = farthest(inputs, max(map(value, factors), default=1.0))
    last, ending = adding(inputs, weights)
    return Step(merged, (*weights, *factors, *last), words, {**thinning, **ending}, fields, indexed=True, peak=peak)


def merged(block: Block, *, rows: bool, rescaled: bool, divide: bool, factor: bool) -> Tensor:
    """Formula: numbers are the weights, those of `kept_middle` and those of `added_up`."""
    return added_up(block, kept_middle(block, rows=rows, rescaled=rescaled), divide=divide, factor=factor)


METHOD = Method(
    info=MethodInfo(
        name="breadcrumbs",
        summary="Drop the largest and smallest changes, add up the rest (Model Breadcrumbs).",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, GAMMA, LAMBDA, normalize(default=False), OUTLIERS, RESCALE_TRIMMED),
    ),
    kernel=kernel,
    fields=RANK_BYTES,
)
