"""Model Stock: from the base to the mean of its fine-tunes, as far as the angle between their task vectors says.

Paper: Model Stock (arXiv 2403.19522), equations 4 and 5, with N sources besides the base.

    D_i = M_i - B;  c = mean over all pairs of <D_i, D_j> / (|D_i| |D_j|)
    t   = N c / (1 + (N - 1) c)
    out = t * mean_i M_i + (1 - t) * B

One t per tensor, or with `filter_wise` one per row (1-D tensors are one row). The paper has one angle; the mean over
all pairs is mergekit's.

Differs from the paper and from mergekit: a negative mean cosine counts as 0 and gives the base, for task vectors that
cancel say nothing about a common centre (the equation goes away from the mean there, without bound). Small task vectors
count in full (mergekit raises the product of two norms to 1e-6). A pair with a zero task vector has cosine 0, as there.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import ChoiceParam
from merging.kernels import Inputs, Method, Step
from merging.rows import dots
from merging.spheres import combined, combined_by_field, cosines, gram


def kernel(inputs: Inputs) -> Step:
    """The same factor for every task vector, of the tensor or of each row."""
    count = len(inputs.others)
    if inputs.flag("filter_wise"):
        share = _share(_row_cosine(inputs), count).float()
        return combined_by_field(inputs, [share] * count)
    table = cosines(gram(inputs))
    pairs = [table[i][j] for i, j in itertools.combinations(range(count), 2)]
    share = _share(torch.tensor(sum(pairs) / len(pairs), dtype=torch.float64), count)
    return combined(inputs, [float(share)] * count)


def _share(cosine: Tensor, count: int) -> Tensor:
    """t / N."""
    cosine = cosine.clamp(0.0, 1.0)
    return cosine / (1.0 + (count - 1) * cosine)


def _row_cosine(inputs: Inputs) -> Tensor:
    """The mean cosine of every row, float64."""
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    sizes = {p: dots(inputs, "rows", p, p, deltas=True).sqrt() for p in inputs.others}
    pairs = list(itertools.combinations(inputs.others, 2))
    for left, right in pairs:
        there = (sizes[left] > 0.0) & (sizes[right] > 0.0)
        product = dots(inputs, "rows", left, right, deltas=True)
        # Two divisions, for the product of two small norms may underflow.
        cosine = product / torch.where(there, sizes[left], 1.0) / torch.where(there, sizes[right], 1.0)
        total = total + torch.where(there, cosine.clamp(-1.0, 1.0), 0.0)
    return total / len(pairs)


METHOD = Method(
    info=MethodInfo(
        name="model_stock",
        summary="Towards the mean of the fine-tunes, as far as their task vectors agree.",
        needs_base=True,
        min_sources=2,
        symmetric=True,
        params=(ChoiceParam(name="filter_wise", default=False, choices=(True, False), about="a share for every row"),),
    ),
    kernel=kernel,
)
