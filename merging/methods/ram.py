"""RAM: where one model has changed, its change; where several have, the mean of theirs.

Paper: Reinforced Agent Merging (arXiv 2601.13572).

    D_i = M_i - B;  S(D) = D where |D| > epsilon else 0;  n = the number of i with |D_i| > epsilon
    out = B + sum_i S(D_i) / max(n, 1)

Differs from the paper: nothing known; mergekit's form. As there, epsilon is an absolute size: tensors whose changes are
all smaller are the base's.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step
from merging.overlaps import EPSILON, active, epsilon_word, mean


def kernel(inputs: Inputs) -> Step:
    """The mean of the changes that are there."""
    return Step(merged, words=(epsilon_word(inputs),))


def merged(block: Block) -> Tensor:
    """Formula: the word is epsilon."""
    return mean(*active(block.deltas(), block.words[0])).add_(block.base)


METHOD = Method(
    info=MethodInfo(
        name="ram",
        summary="Means where changes meet, single changes as they are (RAM).",
        needs_base=True,
        symmetric=True,
        idempotent=False,
        params=(EPSILON,),
    ),
    kernel=kernel,
)
