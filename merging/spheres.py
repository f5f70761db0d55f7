"""Directions and angles of whole tensors, from their inner products: what the spherical methods share.

Every point that these methods reach lies in the span of the sources (of their task vectors, where a base is given), so
the geometry is done on the host with the coefficients, and one weighted sum per tensor remains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from merging.kernels import Block, Inputs, Number, Step, combination, delta_combination, weighted_sum
from merging.scalars import sin, value

#: A mean of unit vectors shorter than this is what rounding leaves of zero: float32 sources say nothing finer.
BALANCED = 1e-6
#: Below this cosine two directions are as good as opposite: no arc between them is better than another.
OPPOSITE = -0.9995
#: Above this one they are as good as equal, and the arc is a straight line.
EQUAL = 1.0 - 1e-12

Gram = list[list[float]]


def gram(inputs: Inputs) -> Gram:
    """Inner products of all sources besides the base; of their task vectors where there is a base."""
    product = inputs.dot if inputs.base is None else inputs.delta_dot
    return [[product(left, right) for right in inputs.others] for left in inputs.others]


def lengths(products: Gram) -> list[float]:
    """The norms, from the inner products."""
    return [math.sqrt(row[i]) for i, row in enumerate(products)]


def cosines(products: Gram) -> Gram:
    """The cosines of all angles; 0 where a tensor is zero."""
    sizes = lengths(products)
    return [[cosine(p, a, b) for p, b in zip(row, sizes, strict=True)] for row, a in zip(products, sizes, strict=True)]


def cosine(product: float, left: float, right: float) -> float:
    """The cosine of an angle from the inner product and both norms; 0 where one is zero."""
    # Two divisions, for the product of two small norms may underflow.
    return max(-1.0, min(1.0, product / left / right)) if left and right else 0.0


def shares(weights: Sequence[Number]) -> list[Number]:
    """The weights over their sum; equal ones where that sum is what rounding leaves of zero."""
    total = sum(weights)
    if abs(value(total)) <= 1e-12 * sum(abs(value(weight)) for weight in weights):
        return [1.0 / len(weights)] * len(weights)
    return [weight / total for weight in weights]


def arc(t: Number, angle_cosine: float, there: bool = True) -> tuple[Number, Number]:
    """Factors of two vectors at `t` of the arc between them: sin((1-t) theta) / sin(theta), sin(t theta) / sin(theta).

    They are 1 - t and t, the straight line, for equal and opposite directions, and unless both vectors are `there`.
    """
    if not there or not OPPOSITE <= angle_cosine < EQUAL:
        return 1.0 - t, t
    theta = math.acos(angle_cosine)
    return sin((1.0 - t) * theta) / math.sin(theta), sin(t * theta) / math.sin(theta)


def combined(inputs: Inputs, factors: Sequence[Number]) -> Step:
    """The sources times their factors; on a base, the base plus the task vectors times them."""
    return Step(combination if inputs.base is None else delta_combination, tuple(factors))


def combined_by_field(inputs: Inputs, factors: Sequence[Tensor]) -> Step:
    """As `combined`, with factors that differ within the tensor."""
    return Step(field_combination if inputs.base is None else delta_field_combination, fields=tuple(factors))


def field_combination(block: Block) -> Tensor:
    """Formula: sum_i f_i M_i, with a field each."""
    return weighted_sum(block.others, block.fields)


def delta_field_combination(block: Block) -> Tensor:
    """Formula: B + sum_i f_i D_i, with a field each."""
    return weighted_sum(block.deltas(), block.fields) + block.base
