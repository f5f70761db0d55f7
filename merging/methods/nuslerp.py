"""NuSLERP: the way from one model to another, or from one task vector to another, along the sphere.

Source: Shoemake, Animating rotation with quaternion curves (SIGGRAPH 1985), equation for slerp, with weights in place
of `t` and an optional base, as mergekit has them.

    t = w_2 / (w_1 + w_2);  A, B = the models, or their task vectors M_i - Base
    cos = <A, B> / (|A| |B|);  theta = acos(cos)
    out = sin((1-t) theta)/sin(theta) A + sin(t theta)/sin(theta) B   (+ Base)

The angle is that of the whole tensors (`nuslerp_flatten`, the default). Otherwise every row of the tensor has its own,
or with `nuslerp_row_wise` every column: mergekit's name, for vectors along the first dimension. Weights that sum to 0
count as equal.

Differs from mergekit: opposite directions (cosine below -0.9995) and zero tensors are interpolated on the straight
line; there, rounding decides where the former go, and the latter count as perpendicular. Norms have no smallest value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import ChoiceParam
from merging.kernels import Inputs, Method, Number, Step
from merging.rows import Axis, dots
from merging.specs import WEIGHT
from merging.spheres import EQUAL, OPPOSITE, arc, combined, combined_by_field, cosine, gram, lengths, shares


def kernel(inputs: Inputs) -> Step:
    """Both sources times their factors, which belong to the tensor or to its rows or columns."""
    t = shares(inputs.numbers("weight"))[1]
    if not inputs.flag("nuslerp_flatten"):
        return combined_by_field(inputs, _arcs(t, *_angles(inputs)))
    products = gram(inputs)
    left, right = lengths(products)
    return combined(inputs, arc(t, cosine(products[0][1], left, right), there=left > 0.0 < right))


def _angles(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The cosine of every row or column, and whether both vectors are there; float64 and bool, on the host."""
    axis: Axis = "columns" if inputs.flag("nuslerp_row_wise") else "rows"
    one, other = inputs.others
    pairs = ((one, one), (other, other), (one, other))
    left, right, product = (dots(inputs, axis, *pair, deltas=inputs.base is not None).cpu() for pair in pairs)
    there = (left > 0.0) & (right > 0.0)
    found = product / torch.where(there, left.sqrt(), 1.0) / torch.where(there, right.sqrt(), 1.0)
    return found.clamp(-1.0, 1.0), there


def _arcs(t: Number, cosines: Tensor, there: Tensor) -> list[Tensor]:
    """`arc` for many angles at once; the host's own functions where no derivative is wanted, float64 where one is."""
    if not isinstance(t, Tensor):
        factors = [arc(t, *pair) for pair in zip(cosines.flatten().tolist(), there.flatten().tolist(), strict=True)]
        return [torch.tensor(column).reshape(cosines.shape) for column in zip(*factors, strict=True)]
    curved = there & (cosines >= OPPOSITE) & (cosines < EQUAL)
    theta = torch.acos(torch.where(curved, cosines, 0.0))
    ends = ((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin()
    return [torch.where(curved, ends[0], 1.0 - t), torch.where(curved, ends[1], t)]


METHOD = Method(
    info=MethodInfo(
        name="nuslerp",
        summary="Spherical interpolation between two sources or two task vectors, by weights.",
        needs_base=False,
        optional_base=True,
        min_sources=2,
        max_sources=2,
        symmetric=True,
        smooth=("weight",),
        params=(
            WEIGHT,
            ChoiceParam(
                name="nuslerp_flatten", default=True, choices=(True, False), about="one angle for the whole tensor"
            ),
            ChoiceParam(
                name="nuslerp_row_wise",
                default=False,
                choices=(True, False),
                about="without nuslerp_flatten: an angle per column (vectors along the first dimension), not per row",
            ),
        ),
    ),
    kernel=kernel,
)
