"""Robust weight signatures: a model is patched with what a robust one has learned beside it.

Paper: Robust weight signatures (arXiv 2302.12480), section 3. The base is the pretrained model; of the two sources the
first is the standard fine-tune and the second the robust one.

    D_s = M_standard - B;  D_r = M_robust - B
    R   = D_r - <D_r, D_s> / <D_s, D_s> * D_s      the part of D_r at right angles to D_s, per tensor
    out = M_standard + alpha * R                   in the shallow layers, M_standard in all others

`layers` is the share of the stack, from the embedding up, that is patched.

Differs from the paper: `layers` is a share, and 1 unless the recipe says less. The paper patches shallow layers only,
as many as its code is told by hand; its networks are for vision, and no number is known that suits language models, so
the share is left to the recipe or to a search. Alpha enters once (the published code multiplies by it twice). All
tensors are treated alike (there, statistics of normalisation layers are averaged, which these models do not have). A
zero D_s projects to 0.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from core.params import FloatParam
from merging.kernels import Block, Inputs, Method, Step, delta_combination
from merging.scalars import value


def kernel(inputs: Inputs) -> Step:
    """The coefficients of both task vectors, or the standard model."""
    if value(inputs.number("layers")) == 0.0:
        return Step(standard)
    alpha, (plain, robust) = inputs.number("alpha"), inputs.others
    squared = inputs.delta_dot(plain, plain)
    along = inputs.delta_dot(robust, plain) / squared if squared else 0.0
    return Step(delta_combination, (1.0 - alpha * along, alpha))


def standard(block: Block) -> Tensor:
    """Formula: M_standard."""
    return block.others[0]


METHOD = Method(
    info=MethodInfo(
        name="rws",
        summary="A standard fine-tune patched with a robust one's signature (robust weight signatures).",
        needs_base=True,
        min_sources=2,
        max_sources=2,
        parts=("standard", "robust"),
        smooth=("alpha",),
        params=(
            FloatParam(
                name="alpha", default=1.0, search_low=0.0, search_high=2.0, about="how much of the signature is added"
            ),
            FloatParam(
                name="layers",
                default=1.0,
                low=0.0,
                high=1.0,
                search_low=0.1,
                search_high=1.0,
                scope="recipe",
                reach=True,
                about="share of the stack that is patched, from the embedding up",
            ),
        ),
    ),
    kernel=kernel,
)
