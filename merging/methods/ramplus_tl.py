"""RAM+: as `ram`, and what a model changes alone is strengthened, the more the more of its changes others meet.

Paper: Reinforced Agent Merging (arXiv 2601.13572), RAM+ with its ratio taken per tensor.

    D_i, S, n as in `ram`;  rho_i = (elements that i and others change) / (elements that i alone changes)
    l_i = 1 + r * min(rho_i, alpha)
    out = B + (sum_i l_i S(D_i) where n = 1, sum_i S(D_i) / max(n, 1) elsewhere)

Differs from the paper: the ratio is of a tensor, not of the model, as in mergekit's method of this name.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from core.params import FloatParam
from merging.kernels import Block, Inputs, Method, Number, Step, weighted_sum
from merging.masks import chosen
from merging.overlaps import EPSILON, active, epsilon_word, mean, shares
from merging.scalars import value


def kernel(inputs: Inputs) -> Step:
    """Count what is shared, then strengthen what is not."""
    strength, limit = inputs.number("r"), inputs.number("alpha")
    factors = tuple(1.0 + strength * _limited(shared, alone, limit) for shared, alone in shares(inputs))
    return Step(merged, factors, (epsilon_word(inputs),))


def _limited(shared: int, alone: int, limit: Number) -> Number:
    # Where nothing is the model's alone, the factor meets nothing.
    return shared / alone if alone and shared / alone < value(limit) else limit


def merged(block: Block) -> Tensor:
    """Formula: numbers are the l_i; the word is epsilon."""
    parts, count = active(block.deltas(), block.words[0])
    alone = (count - 2).bitwise_and_((count - 1).bitwise_not_()).bitwise_right_shift_(31)
    single = chosen(weighted_sum(parts, block.numbers), alone)
    return chosen(mean(parts, count), alone.bitwise_not()).add_(single).add_(block.base)


METHOD = Method(
    info=MethodInfo(
        name="ramplus_tl",
        summary="As ram, with single changes strengthened by how much is shared (RAM+).",
        needs_base=True,
        symmetric=True,
        idempotent=False,
        smooth=("r", "alpha"),
        params=(
            EPSILON,
            FloatParam(
                name="r",
                default=0.1,
                low=0.0,
                search_low=0.0,
                search_high=1.0,
                about="how much single changes are strengthened",
            ),
            FloatParam(
                name="alpha",
                default=0.2,
                low=0.0,
                search_low=0.0,
                search_high=1.0,
                about="limit of the ratio of shared to single changes",
            ),
        ),
    ),
    kernel=kernel,
)
