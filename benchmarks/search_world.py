"""A simulated world to search in: items, and landscapes over merge coefficients that decide who gets them right.

An item i of task t has the margin

    m = s(w) a_i (theta_t(w) - b_i + tau g_i(w)),  right iff m > 0,

with w the candidate's values scaled to the unit box, theta_t its ability (a quadratic with rotated curvature around
the task's own optimum, ripple, a cliff over a fifth of the box), b_i and a_i the item's difficulty and sharpness, s the
candidate's calibration, and g_i a smooth random function, so that near candidates disagree on few items. Abilities and
difficulties are normal, hence the true score of a candidate is known exactly. Everything follows from one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import ndtr

from core.params import ChoiceParam, Scalar
from core.space import SearchSpace
from core.space_spec import SpaceSpec

Floats = NDArray[np.float64]

TASKS, PER_TASK, HELD_OUT = 3, 1000, 1000
#: Items of one full evaluation.
FULL = TASKS * PER_TASK
#: Spread of what a candidate does to single items, in spreads of the items' difficulty.
TAU = 0.7
_SPREAD = float(np.hypot(1.0, TAU))
_FEATURES = 96


@dataclass(frozen=True)
class Shape:
    """What a landscape looks like.

    Attributes:
        reach: distance of the optimum from the uniform merge.
        condition: largest over smallest curvature.
        gap: points by which the uniform merge lies below the optimum.
        ripple: amplitude in points.
        cliff: points lost beyond it.
        offset: distance of a task's own optimum from the common one.
        length: distance over which items change their mind.
        settled: share of what a candidate does to items that is the same everywhere in the landscape.
        level: points by which the optimum lies below that of a landscape with level 0.
    """

    reach: float
    condition: float = 3.0
    gap: float = 2.7
    ripple: float = 0.2
    cliff: float = 12.0
    offset: float = 0.08
    length: float = 1.0
    settled: float = 0.0
    level: float = 0.0


#: By number of parameters. Those for 4 and 10 were fitted to published curves (see `search_simulation`).
NUMERIC = {
    2: Shape(reach=0.28, condition=2.0, length=1.3),
    4: Shape(reach=0.37, condition=2.0, length=1.5),
    6: Shape(reach=0.42, condition=3.0, length=1.4),
    10: Shape(reach=0.55, condition=6.0, length=1.1),
}
MIXED = {
    "task_arithmetic": Shape(reach=0.30, settled=0.8, length=0.4),
    "ties": Shape(reach=0.35, settled=0.8, length=0.5),
    "dare_ties": Shape(reach=0.35, settled=0.8, length=0.5),
    "slerp": Shape(reach=0.20, settled=0.8, length=0.3),
}
#: Points by which the methods' optima lie below the best method's.
LEVELS = (0.0, 0.6, 1.5, 3.0)


class Waves:
    """A smooth random function of w with values of spread 1: a sum of cosines."""

    def __init__(self, rng: np.random.Generator, dimensions: int, length: float, count: int) -> None:
        self._frequency = rng.normal(size=(count, dimensions)) / length
        self._phase = rng.uniform(0, 2 * np.pi, count)

    def features(self, w: Floats) -> Floats:
        """(count,) of length exactly 1, so that a sum with standard normal weights has variance 1."""
        waves = np.cos(self._frequency @ w + self._phase)
        return np.asarray(waves / np.sqrt(waves @ waves))


class Landscape:
    """Abilities over the unit box of one method's parameters.

    Args:
        rng: the only source of chance.
        peaks: (TASKS,) abilities at the optimum of a landscape with level 0.
        shape: see Shape.
        centre: (dimensions,) the uniform merge.
    """

    def __init__(self, rng: np.random.Generator, peaks: Floats, shape: Shape, centre: Floats) -> None:
        self.shape, self.centre = shape, centre
        self.dimensions = dimensions = len(centre)
        self.optimum = _inside(rng, centre, shape.reach)
        spread = np.linspace(-0.5, 0.5, dimensions) if dimensions > 1 else np.zeros(1)
        turned = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))[0]
        self.curvature = (turned * shape.condition**spread) @ turned.T
        offsets = rng.normal(size=(TASKS, dimensions))
        offsets -= offsets.mean(axis=0)
        self.optima = self.optimum + shape.offset * offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
        self._ripple = Waves(rng, dimensions, 0.25 * np.sqrt(dimensions / 2), 24)
        self._ripple_weights = rng.normal(size=(TASKS, 24))
        self._calibration = Waves(rng, dimensions, 0.5 * np.sqrt(dimensions), 24)
        self._calibration_weights = rng.normal(size=24)
        self._items = Waves(rng, dimensions, shape.length, _FEATURES)
        self._edge = self._placed_edge(rng)
        slope = 100 * np.exp(-0.5 * (peaks / _SPREAD) ** 2).mean() / np.sqrt(2 * np.pi) / _SPREAD
        self._point = 1 / slope  # of ability, worth one point of accuracy near the optimum
        self.peaks = peaks - shape.level * self._point
        self._gain = self._fitted_gain()

    def ability(self, w: Floats) -> Floats:
        """(TASKS,) abilities."""
        away = w - self.optima
        bowl = 0.5 * self._gain * np.einsum("td,de,te->t", away, self.curvature, away)
        ripple = self.shape.ripple * self._point * (self._ripple_weights @ self._ripple.features(w))
        direction, edge = self._edge
        beyond = 1 / (1 + np.exp(-np.clip((direction @ w - edge) / 0.015, -60, 60)))
        return np.asarray(self.peaks - bowl + ripple - self.shape.cliff * self._point * beyond)

    def accuracy(self, w: Floats) -> float:
        """The true macro accuracy."""
        return float(ndtr(self.ability(w) / _SPREAD).mean())

    def items(self, w: Floats) -> Floats:
        """(features + 1,) of length 1: what items weigh to know how w treats them."""
        settled = self.shape.settled
        return np.append(np.sqrt(1 - settled) * self._items.features(w), np.sqrt(settled))

    def scale(self, w: Floats) -> float:
        """The candidate's calibration: all of its margins are multiplied by it."""
        return float(np.exp(0.2 * (self._calibration_weights @ self._calibration.features(w))))

    def best(self) -> float:
        """The highest true accuracy in the box."""
        starts = [self.optimum, *self.optima, self.centre]
        found = [
            minimize(lambda w: -self.accuracy(w), start, bounds=[(0, 1)] * self.dimensions, method="L-BFGS-B")
            for start in starts
        ]
        return -min(float(result.fun) for result in found)

    def _placed_edge(self, rng: np.random.Generator) -> tuple[Floats, float]:
        """Beyond a plane lies a fifth of the box, but neither the uniform merge nor anything near an optimum."""
        box = rng.uniform(size=(2000, self.dimensions))
        for _ in range(1000):
            direction = rng.normal(size=self.dimensions)
            direction /= np.linalg.norm(direction)
            edge = float(np.quantile(box @ direction, 0.8))
            if max((points @ direction).max() for points in (self.optima, self.centre[None])) < edge - 0.12:
                break
        return direction, edge

    def _fitted_gain(self) -> float:
        """The curvature's factor under which the uniform merge lies `gap` points below the optimum."""

        def miss(gain: float) -> float:
            self._gain = gain
            top = float(ndtr(self.ability(self.optimum) / _SPREAD).mean())
            return 100 * (top - self.accuracy(self.centre)) - self.shape.gap

        high = 0.1
        while miss(high) < 0:
            high *= 1.5
        return float(brentq(miss, 0.0, high))


class Bank:
    """Items, task by task.

    Args:
        rng: the only source of chance.
        count: items per task.
    """

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self._difficulty = rng.normal(size=(TASKS, count))
        self._sharpness = np.exp(0.3 * rng.normal(size=(TASKS, count)))
        # Single precision halves the time of the one large product, and decides no item in a million.
        self._tastes = rng.normal(size=(TASKS * count, _FEATURES + 1)).astype(np.float32)

    def margins(self, landscape: Landscape, w: Floats) -> Floats:
        """(TASKS, items) margins of the candidate at w; right where they are positive."""
        tastes = (self._tastes @ landscape.items(w).astype(np.float32)).reshape(self._difficulty.shape)
        ability = landscape.ability(w)[:, None]
        return np.asarray(landscape.scale(w) * self._sharpness * (ability - self._difficulty + TAU * tastes))


class World:
    """Items and what every candidate makes of them.

    Args:
        seed: decides everything.
        space: the search space whose values are candidates.
        shapes: each method's landscape, in the order of the space's methods.
    """

    per_task = PER_TASK

    def __init__(self, seed: int, space: SearchSpace, shapes: Mapping[str, Shape]) -> None:
        rng = np.random.default_rng([seed, len(space.holes), 20261120])
        self.space = space
        self._first = next(iter(shapes))  # that of the reference
        self._holes = {method: _numeric(space, method) for method in shapes}
        uniform = dict(zip(shapes, (space.read(recipe) for recipe in space.uniform()), strict=True))
        self.uniform = uniform[self._first]
        peaks = rng.normal(0.55, 0.2, TASKS)
        self._landscapes = {
            method: Landscape(rng, peaks, shape, self._point(method, uniform[method]))
            for method, shape in shapes.items()
        }
        weights = [name for name, _, _ in self._holes[self._first] if ".weight." in name]
        assert len(weights) % 2 == 0
        half = len(weights) // 2
        #: Each source alone, as the first method expresses it.
        self.parents = tuple(
            self.uniform | {name: float((k < half) == first) for k, name in enumerate(weights)}
            for first in (True, False)
        )
        self._search, self._held_out = Bank(rng, PER_TASK), Bank(rng, HELD_OUT)

    def margins(self, values: Mapping[str, Scalar]) -> Floats:
        """(TASKS, PER_TASK) on the search items, in the study's order."""
        return self._search.margins(*self._place(values))

    def held_out(self, values: Mapping[str, Scalar]) -> Floats:
        """(TASKS, HELD_OUT) on the items that no search sees."""
        return self._held_out.margins(*self._place(values))

    def accuracy(self, values: Mapping[str, Scalar]) -> float:
        """The true macro accuracy, over infinitely many items, as a share."""
        landscape, w = self._place(values)
        return landscape.accuracy(w)

    @cached_property
    def best(self) -> float:
        """The highest true accuracy in the space."""
        return max(landscape.best() for landscape in self._landscapes.values())

    def regret(self, values: Mapping[str, Scalar]) -> float:
        """Points of true accuracy below the best candidate there is."""
        return 100 * (self.best - self.accuracy(values))

    def _place(self, values: Mapping[str, Scalar]) -> tuple[Landscape, Floats]:
        method = str(values.get("merge.method", self._first))
        return self._landscapes[method], self._point(method, values)

    def _point(self, method: str, values: Mapping[str, Scalar]) -> Floats:
        """The values of a method's parameters, scaled to the unit box."""
        return np.array([(float(values[name]) - low) / width for name, low, width in self._holes[method]])


def _inside(rng: np.random.Generator, centre: Floats, reach: float) -> Floats:
    """A point at that distance from the centre, well inside the unit box."""
    for _ in range(10_000):
        direction = rng.normal(size=len(centre))
        point = centre + reach * direction / np.linalg.norm(direction)
        if point.min() > 0.08 and point.max() < 0.92:
            return np.asarray(point)
    raise ValueError(f"no point at distance {reach!r} of {centre!r} lies inside the box: take a smaller reach")


def _numeric(space: SearchSpace, method: str) -> list[tuple[str, float, float]]:
    """A method's parameters: name, lower bound, width of the interval."""
    found = []
    for hole in space.holes:
        if hole.name.startswith(f"merge.{method}."):
            assert not isinstance(hole.spec, ChoiceParam)
            low, high = float(hole.spec.search_low), float(hole.spec.search_high)
            found.append((hole.name, low, high - low))
    return found


def numeric(seed: int, dimensions: int) -> World:
    """Two sources with a weight in [0, 1] for each of `dimensions / 2` groups of layers, under task arithmetic."""
    return World(seed, _space(("task_arithmetic",), dimensions // 2), {"task_arithmetic": NUMERIC[dimensions]})


def mixed(seed: int) -> World:
    """Four methods, each with parameters of its own; which is the best changes with the seed."""
    order = np.random.default_rng([seed, 4]).permutation(len(MIXED))
    shapes = {
        method: replace(shape, level=LEVELS[rank]) for rank, (method, shape) in zip(order, MIXED.items(), strict=True)
    }
    return World(seed, _space(tuple(MIXED), 2), shapes)


@cache
def _space(methods: tuple[str, ...], groups: int) -> SearchSpace:
    params = {"weight": {"low": 0.0, "high": 1.0}} if methods != ("slerp",) else {}
    family = {"family": "merge", "methods": methods, "base": "base", "layer_groups": groups, "params": params}
    spec = SpaceSpec.model_validate({"families": [family]})
    return SearchSpace(spec, ["base", "a", "b"], depth=4 * groups)
