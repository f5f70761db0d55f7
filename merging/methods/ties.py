"""TIES: trim small changes, elect one sign per weight, merge what agrees with it.

Paper: TIES-Merging (arXiv 2306.01708), section 4.

    D_i = M_i - B;  S(D) keeps the k = max(1, int(density * n)) entries of largest magnitude, equal ones by index
    s   = +1 where sum_i w_i S(D_i) >= 0 else -1
    out = B + lambda * sum_{i agrees} w_i S(D_i) / (sum_{i agrees} w_i if normalize else 1)

Differs from the paper: the defaults are mergekit's, where k and n are of a tensor and the election is weighted.
`trim_scope: model` takes the k largest of all n entries that the source changes in the candidate (a tensor merged
twice counts once; equal ones in the order of the tensors; a density that differs between tensors is each one's share
of the same n); the paper's code keeps all entries equal to the k-th. `elect: unweighted` elects on the S(D_i). An even
vote goes to +1; the paper's code gives it to the sign that won most often in the whole model. Density 0 is allowed
and gives the base. `rescale` (`l1`, `l2`, `inv_density`) scales up what is kept of a tensor, which the paper does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import ChoiceParam
from merging.kernels import Block, Inputs, Method, Step
from merging.magnitudes import Cut, changes, cut_at, largest, share, within
from merging.masks import chosen
from merging.scalars import value
from merging.scaling import RESCALE_TRIMMED, Kept, trimmed_factor
from merging.specs import DENSITY, LAMBDA, TASK_WEIGHT, normalize
from merging.task_vectors import ELECT, elected, electing, farthest
from merging.whole_model import model_cut


def kernel(inputs: Inputs) -> Step:
    """Trim, elect, merge."""
    densities, rescaled = inputs.values("density"), inputs.flag("rescale") != "none"
    cuts = [_cut(inputs, position, density) for position, density in zip(inputs.others, densities, strict=True)]
    sources = zip(inputs.others, densities, cuts, strict=True) if rescaled else ()
    factors = [trimmed_factor(inputs, position, density, _trimmed(cut)) for position, density, cut in sources]
    last, flags = electing(inputs)
    words = tuple(word for cut in cuts for word in cut.words)
    numbers = (*inputs.numbers("weight"), *factors, *last)
    peak = farthest(inputs, max(map(value, factors), default=1.0))
    return Step(merged, numbers, words, {"rescaled": rescaled, **flags}, indexed=True, peak=peak)


def merged(block: Block, *, rescaled: bool, **flags: Any) -> Tensor:
    """Formula: numbers are the weights, the factors under `rescaled`, and lambda; words those of the cuts."""
    count = len(block.others)
    trimmed = [chosen(delta, within(block, delta, 2 * i)) for i, delta in enumerate(block.deltas())]
    if rescaled:
        for part, factor in zip(trimmed, block.numbers[count : 2 * count], strict=True):
            part.mul_(factor)
    return elected(block, trimmed, **flags)


def _cut(inputs: Inputs, position: int, density: float) -> Cut:
    if inputs.flag("trim_scope") == "model":
        return model_cut(inputs, position, density)
    return cut_at(changes(inputs, position), share(inputs.elements, density))


def _trimmed(cut: Cut) -> Kept:
    def kept(delta: Tensor, start: int, stop: int) -> Tensor:
        index = torch.arange(start, stop, dtype=torch.int32, device=delta.device)
        return chosen(delta, largest(delta, index, cut.bits, cut.until))

    return kept


TRIM_SCOPE = ChoiceParam(
    name="trim_scope",
    default="tensor",
    choices=("tensor", "model"),
    about="whether density is a share of each tensor (mergekit) or of all tensors of the candidate (paper)",
    implied=True,
)

METHOD = Method(
    info=MethodInfo(
        name="ties",
        summary="Trim by magnitude, elect signs, merge what agrees (TIES).",
        needs_base=True,
        symmetric=True,
        smooth=("weight", "lambda"),
        params=(TASK_WEIGHT, DENSITY, LAMBDA, normalize(default=True), TRIM_SCOPE, ELECT, RESCALE_TRIMMED),
    ),
    kernel=kernel,
)
