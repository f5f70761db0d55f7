"""Multi-SLERP: the weighted mean of many models, or of many task vectors, on the sphere.

Source: C. Goddard, Multi-SLERP (goddard.blog/posts/multislerp-wow-what-a-cool-idea), as mergekit has it.

    D_i = the models, or their task vectors M_i - B;  u_i = D_i / |D_i|;  w_i over their sum if normalize_weights
    m   = sum_i w_i u_i;   out = sum_i w_i |D_i| * m / |m|   (+ B)

The source goes from m / |m| along the mean of the tangents w_i (u_i - <u_i, m> m / |m|^2). Their sum is zero for every
choice of weights, so that the step leads nowhere and is not taken here.

Differs from mergekit: where the directions cancel, |m| <= max(eps, 1e-6) * sum_i |w_i|, the straight line
sum_i w_i D_i is taken for any number of sources (an error there for more than two). `eps` is not added to the norms,
so small tensors keep their directions, and a zero tensor has none: it only shortens the result. A single source
without normalize_weights is multiplied by its weight. Weights that sum to 0 under normalize_weights are refused in a
recipe and count as equal otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.catalog import MethodInfo
from core.params import ChoiceParam, FloatParam
from merging.kernels import Inputs, Method, Number, Step
from merging.scalars import sqrt, value
from merging.specs import WEIGHT
from merging.spheres import BALANCED, Gram, combined, cosines, gram, lengths, shares


def kernel(inputs: Inputs) -> Step:
    """The sources times their factors."""
    weights = inputs.numbers("weight")
    if inputs.flag("normalize_weights"):
        weights = shares(weights)
    eps = value(inputs.number("eps"))
    return combined(inputs, multislerp_factors(weights, gram(inputs), eps))


def multislerp_factors(weights: Sequence[Number], products: Gram, eps: float) -> list[Number]:
    """The factor of every tensor, from the inner products of all."""
    sizes, angles = lengths(products), cosines(products)
    squared = sum(
        v * w * angles[i][j] for i, v in enumerate(weights) for j, w in enumerate(weights) if sizes[i] and sizes[j]
    )
    if value(squared) <= (max(eps, BALANCED) * sum(abs(value(w)) for w in weights)) ** 2:
        return list(weights)
    size = sum(w * length for w, length in zip(weights, sizes, strict=True)) / sqrt(squared)
    return [w / length * size if length else 0.0 for w, length in zip(weights, sizes, strict=True)]


METHOD = Method(
    info=MethodInfo(
        name="multislerp",
        summary="Weighted mean of directions and lengths, of sources or of task vectors.",
        needs_base=False,
        optional_base=True,
        symmetric=True,
        smooth=("weight",),
        params=(
            WEIGHT,
            ChoiceParam(
                name="normalize_weights",
                default=True,
                choices=(True, False),
                about="divide the weights by their sum",
                divides=True,
            ),
            FloatParam(
                name="eps",
                default=1e-8,
                low=0.0,
                search_low=1e-8,
                search_high=1e-2,
                log=True,
                searched=False,
                about="a mean direction shorter than this share of the weights counts as none",
            ),
        ),
    ),
    kernel=kernel,
)
