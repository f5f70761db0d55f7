"""Slerp: the way from one model to another along the sphere instead of the straight line.

Source: Shoemake, Animating rotation with quaternion curves (SIGGRAPH 1985), equation for slerp.

    cos = <A, B> / (|A| |B|) over the whole tensor, theta = acos(cos)
    out = sin((1-t) theta)/sin(theta) A + sin(t theta)/sin(theta) B
    out = (1-t) A + t B    where |cos| > 0.9995 or a tensor is zero

Differs from the paper: A and B keep their own lengths, as in mergekit, so a length in between results only where the
two are equal. Parallel tensors and a zero tensor are interpolated on the line. So are antipodal ones: every great
circle joins them and none is better, the line is the only choice that does not depend on rounding (it passes near
zero at t = 0.5).
"""

from __future__ import annotations

import math

from core.catalog import MethodInfo
from core.params import FloatParam
from merging.kernels import Inputs, Method, Number, Step, combination
from merging.scalars import sin

#: Beyond this |cosine| the sphere is as good as flat.
PARALLEL = 0.9995


def kernel(inputs: Inputs) -> Step:
    """Both sources times their factors."""
    return Step(combination, slerp_factors(inputs.number("t"), inputs.dot(0, 1), inputs.dot(0, 0), inputs.dot(1, 1)))


def slerp_factors(t: Number, inner: float, left_squared: float, right_squared: float) -> tuple[Number, Number]:
    """The factors of both tensors, from their inner product and squared norms."""
    lengths = math.sqrt(left_squared) * math.sqrt(right_squared)
    if lengths == 0.0 or abs(inner / lengths) > PARALLEL:
        return 1.0 - t, t
    theta = math.acos(inner / lengths)
    return sin((1.0 - t) * theta) / math.sin(theta), sin(t * theta) / math.sin(theta)


METHOD = Method(
    info=MethodInfo(
        name="slerp",
        summary="Spherical interpolation between two sources.",
        needs_base=False,
        min_sources=2,
        max_sources=2,
        smooth=("t",),
        params=(
            FloatParam(
                name="t",
                default=0.5,
                low=0.0,
                high=1.0,
                search_low=0.0,
                search_high=1.0,
                about="0 is the first source, 1 the second",
            ),
        ),
    ),
    kernel=kernel,
)
