"""aTLAS: task vectors with a coefficient for every parameter block, or for random parts of each.

Paper: Knowledge composition using task vectors with learned anisotropic scaling (arXiv 2407.02880), equation 3, and
aTLAS x K of section 5.3.

    D_i = M_i - B;  every tensor is a block, whose elements are in K parts by chance, all equally likely
    out = B + sum_i c_ik D_i   in part k

`weight` is the coefficient: filters by tensor name and layer gradients give every block its own, and each is smooth.
`parts` is K; in part k from the second on the coefficient is `weight` + `offset_k`.

Differs from the paper: the coefficients are the recipe's, found by a search or by following their gradients, not
learned by AdamW from 0; the default is 1, a full task vector. An element's part is a hash of (seed, source, tensor,
index), so that every worker has the same parts, and tensors of any shape have them.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from core.catalog import MethodInfo
from core.params import FloatParam, IntParam
from merging.dropping import key_words
from merging.kernels import Block, Inputs, Method, Step, delta_combination, weighted_sum
from merging.randomness import draws, keep, threshold
from merging.scalars import value
from merging.specs import TASK_WEIGHT

#: The largest K.
MOST = 8
OFFSETS = tuple(f"offset_{part}" for part in range(2, MOST + 1))


def kernel(inputs: Inputs) -> Step:
    """A coefficient per task vector and part."""
    weights, parts = inputs.numbers("weight"), int(value(inputs.number("parts")))
    if parts == 1:
        return Step(delta_combination, tuple(weights))
    bounds = [threshold(part / parts) for part in range(1, parts + 1)]
    more = [[w + o for w, o in zip(weights, inputs.numbers(name), strict=True)] for name in OFFSETS[: parts - 1]]
    return Step(
        composed,
        numbers=(*bounds, *weights, *(number for part in more for number in part)),
        words=key_words(inputs),
        flags={"parts": parts},
        indexed=True,
    )


def composed(block: Block, *, parts: int) -> Tensor:
    """Formula: numbers are the parts' upper bounds, then the coefficients part by part; words the sources' keys."""
    assert block.index is not None
    assert block.stretch is not None
    count, factors = len(block.others), []
    for i in range(count):
        drawn = draws(block.index, block.words[2 * i] ^ block.stretch, block.words[2 * i + 1])
        below = [keep(drawn, bound).to(block.base.dtype) for bound in block.numbers[:parts]]
        # Every element is in one part, so that all but one term are zero and the sum is exact.
        inside = [below[0], *(high - low for low, high in itertools.pairwise(below))]
        factors.append(weighted_sum(inside, block.numbers[parts + i :: count]))
    return weighted_sum(block.deltas(), factors) + block.base


METHOD = Method(
    info=MethodInfo(
        name="atlas",
        summary="Task vectors with a coefficient per tensor, or per random part of it (aTLAS).",
        needs_base=True,
        random=True,
        symmetric=True,
        smooth=("weight", *OFFSETS),
        params=(
            TASK_WEIGHT,
            IntParam(
                name="parts",
                default=1,
                low=1,
                high=MOST,
                search_low=1,
                search_high=MOST,
                searched=False,
                about="random parts of every tensor (K of aTLAS x K)",
            ),
            *(
                FloatParam(
                    name=name,
                    default=0.0,
                    search_low=-0.5,
                    search_high=0.5,
                    searched=False,
                    scope="source",
                    about=f"added to the weight in part {part}",
                )
                for part, name in enumerate(OFFSETS, start=2)
            ),
        ),
    ),
    kernel=kernel,
)
