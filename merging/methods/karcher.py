"""Karcher mean: the point of the sphere whose squared angles to all models add up to least.

Paper: arXiv 2603.04972 (Riemannian center of mass: Karcher, 1977).

With u_i = M_i / |M_i| and weights a_i that sum to 1:

    u <- sum_i a_i u_i, normalised;  then again and again, until |T| < tol or max_iter steps are done:
    T  = sum_i a_i theta_i / sin(theta_i) * (u_i - cos(theta_i) u),  cos(theta_i) = <u_i, u>
    u <- cos(|T|) u + sin(|T|) T / |T|
    out = sum_i a_i |M_i| * u

The iteration runs on the coefficients of u over the u_i, in float64, with the inner products of the sources.

Differs from the paper and from mergekit: every source may have its own weight (equal ones by default, which also stand
in for weights that are all 0). A zero tensor has no direction, a small one has (there, lengths below `tol` have none).
Where the directions cancel, the straight line sum_i a_i M_i is taken, not the first source's direction. `tol` ends the
iteration and nothing else (there it also leaves out sources whose angle is below it).
"""

from __future__ import annotations

from collections.abc import Sequence

from core.catalog import MethodInfo
from core.params import FloatParam, IntParam
from merging.kernels import Inputs, Method, Number, Step
from merging.scalars import arccos, cos, sin, sqrt, value
from merging.specs import WEIGHT
from merging.spheres import BALANCED, EQUAL, Gram, combined, cosines, gram, lengths, shares


def kernel(inputs: Inputs) -> Step:
    """The sources times their factors."""
    weights, steps = shares(inputs.numbers("weight")), int(value(inputs.number("max_iter")))
    return combined(inputs, karcher_factors(weights, gram(inputs), steps, value(inputs.number("tol"))))


def karcher_factors(weights: Sequence[Number], products: Gram, steps: int, tol: float) -> list[Number]:
    """The factor of every tensor, from the inner products of all."""
    sizes, angles = lengths(products), cosines(products)
    there: list[Number] = [w if size else 0.0 for w, size in zip(weights, sizes, strict=True)]
    squared = _squared(there, angles)
    total = sum(there)
    if value(squared) <= (BALANCED * value(total)) ** 2:
        return list(weights)
    there = [w / total for w in there]
    point = _scaled(there, total / sqrt(squared))
    for _ in range(steps):
        tangent = _tangent(point, there, angles)
        squared = _squared(tangent, angles)
        if value(squared) <= tol**2 or value(squared) <= 0.0:
            break
        step = sqrt(squared)
        point = [cos(step) * p + sin(step) / step * q for p, q in zip(point, tangent, strict=True)]
        point = _scaled(point, 1.0 / sqrt(_squared(point, angles)))
    length = sum(w * size for w, size in zip(weights, sizes, strict=True))
    return [p / size * length if size else 0.0 for p, size in zip(point, sizes, strict=True)]


def _tangent(point: Sequence[Number], weights: Sequence[Number], angles: Gram) -> list[Number]:
    """Coefficients of T at a point that is given by its own."""
    near = [sum(p * c for p, c in zip(point, row, strict=True)) for row in angles]
    pulls = [w * _stretch(c) for w, c in zip(weights, near, strict=True)]
    along = sum(pull * c for pull, c in zip(pulls, near, strict=True))
    return [pull - p * along for pull, p in zip(pulls, point, strict=True)]


def _stretch(angle_cosine: Number) -> Number:
    """theta / sin(theta); 1 at angle 0, and 0 opposite the point, where no direction leads to it."""
    if value(angle_cosine) >= EQUAL:
        return 1.0
    if value(angle_cosine) <= -EQUAL:
        return 0.0
    return arccos(angle_cosine) / sqrt(1.0 - angle_cosine * angle_cosine)


def _squared(point: Sequence[Number], angles: Gram) -> Number:
    """The squared length of a combination of unit vectors."""
    total: Number = 0.0
    for p, row in zip(point, angles, strict=True):
        total = total + p * sum(q * c for q, c in zip(point, row, strict=True))
    return total


def _scaled(point: Sequence[Number], factor: Number) -> list[Number]:
    return [p * factor for p in point]


METHOD = Method(
    info=MethodInfo(
        name="karcher",
        summary="Mean on the sphere that minimises squared angles (Riemannian, Karcher or Frechet mean).",
        needs_base=False,
        symmetric=True,
        smooth=("weight",),
        params=(
            WEIGHT.evolve(low=0.0),
            IntParam(
                name="max_iter",
                default=10,
                low=1,
                high=1000,
                search_low=1,
                search_high=50,
                searched=False,
                about="most steps of the iteration",
            ),
            FloatParam(
                name="tol",
                default=1e-5,
                low=0.0,
                search_low=1e-9,
                search_high=1e-2,
                log=True,
                searched=False,
                scope="recipe",
                about="a step shorter than this angle ends the iteration",
            ),
        ),
    ),
    kernel=kernel,
)
