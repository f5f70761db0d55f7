"""The tensors every method is tried on: a family is one tensor of a base and of up to three models.

The scales are those that decide whether a formula holds in float32: fine-tunes a thousandth of their base away,
models far apart, a norm layer, one row, one element, equal magnitudes, unchanged entries, opposite, parallel and
zero tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Family = dict[str, Array]

MODELS = ("a", "b", "c")


def families() -> dict[str, Family]:
    """Every family by name: arrays `a`, `b`, `c` and `base`, float32, of one shape."""
    return {name: make(np.random.default_rng(seed)) for seed, (name, make) in enumerate(_MAKERS.items(), start=100)}


#: How much of a change all models of a family share, as fine-tunes of one base do.
COMMON = 0.8


def _around(
    generator: np.random.Generator, shape: tuple[int, ...], centre: float, spread: float, change: float
) -> Family:
    """A normal base, and models a normal change away from it that is partly the same for all."""
    base, common = centre + spread * generator.normal(size=shape), generator.normal(size=shape)
    changed = {name: base + change * (COMMON * common + (1 - COMMON) * generator.normal(size=shape)) for name in MODELS}
    return {name: array.astype(np.float32) for name, array in {**changed, "base": base}.items()}


def _grid(generator: np.random.Generator) -> Family:
    """Changes of few sizes, many of them zero: magnitudes tie everywhere, and every difference is exact."""
    shape = (12, 20)
    base, common = generator.integers(-64, 64, size=shape), generator.integers(-2, 3, size=shape)
    changed = {name: base + common + generator.integers(-1, 2, size=shape) for name in MODELS}
    return {name: (array / 64).astype(np.float32) for name, array in {**changed, "base": base}.items()}


def _sparse(generator: np.random.Generator) -> Family:
    """Two models that change a good third of the entries each, and one that changes nothing."""
    shape = (20, 15)
    base, common = 0.02 * generator.normal(size=shape), generator.normal(size=shape)
    changed = {
        name: base + 0.004 * (common + 0.1 * generator.normal(size=shape)) * (generator.random(shape) < share)
        for name, share in (("a", 0.3), ("b", 0.4), ("c", 0.0))
    }
    return {name: array.astype(np.float32) for name, array in {**changed, "base": base}.items()}


def _opposite(generator: np.random.Generator) -> Family:
    """Two models that are each other's negative around a zero base, and a third."""
    one, other = (generator.normal(size=(10, 12)).astype(np.float32) for _ in range(2))
    return {"a": one, "b": -one, "c": other, "base": np.zeros_like(one)}


def _against(generator: np.random.Generator) -> Family:
    """Two models in opposite directions, of lengths whose cosine float32 does not find to be -1."""
    one, other = (generator.normal(size=(8, 16)).astype(np.float32) for _ in range(2))
    return {"a": one, "b": np.float32(-3.3) * one, "c": other, "base": np.zeros_like(one)}


def _parallel(generator: np.random.Generator) -> Family:
    """Models on one line through zero."""
    one = generator.normal(size=(9, 14)).astype(np.float32)
    return {"a": one, "b": 2 * one, "c": 4 * one, "base": np.float32(0.5) * one}


def _with_zero(generator: np.random.Generator) -> Family:
    """One model whose tensor is zero, and a base that equals another model."""
    a, b, c = (generator.normal(size=(11, 13)).astype(np.float32) for _ in MODELS)
    return {"a": np.zeros_like(a), "b": b, "c": c, "base": c.copy()}


def _unequal(generator: np.random.Generator) -> Family:
    """Models whose lengths differ a thousandfold."""
    family = {name: generator.normal(size=(17, 13)) * size for name, size in zip(MODELS, (10, 0.01, 1), strict=True)}
    family["base"] = 0.001 * generator.normal(size=(17, 13))
    return {name: array.astype(np.float32) for name, array in family.items()}


_MAKERS: dict[str, Callable[[np.random.Generator], Family]] = {
    "weights": lambda g: _around(g, (24, 20), 0.0, 0.02, 2e-5),
    "apart": lambda g: _around(g, (16, 33), 0.0, 0.5, 0.3),
    "norm": lambda g: _around(g, (37,), 1.0, 0.05, 0.01),
    "row": lambda g: _around(g, (1, 29), 0.0, 0.1, 0.05),
    "one": lambda g: _around(g, (1,), 0.5, 0.5, 0.3),
    "cube": lambda g: _around(g, (5, 7, 6), 0.0, 0.3, 0.1),
    "grid": _grid,
    "sparse": _sparse,
    "opposite": _opposite,
    "against": _against,
    "parallel": _parallel,
    "zero": _with_zero,
    "unequal": _unequal,
}
