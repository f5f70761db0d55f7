"""A conditional space as a few unit cubes: one for every combination of the choices that decide which holes exist.

Inside a cube each hole is one coordinate in [0, 1]. A whole number or a choice owns a cell of equal width (of equal
ratio on a log scale), and stands at its middle; so a uniform point is a uniform draw, and rounding never favours the
inner values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from core.params import ChoiceParam, IntParam, ParamSpec, Scalar
from core.space import Hole, SearchSpace
from search.suggest import distribution

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """One cube: the deciding choices, and the holes that remain free under them.

    Attributes:
        fixed: values of the deciding holes and of those with a single value.
        free: the other active holes, in hole order; coordinate k of the cube is free[k].
        names: of all active holes, in hole order.
    """

    fixed: Mapping[str, Scalar]
    free: tuple[Hole, ...]
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return len(self.free)

    @cached_property
    def continuous(self) -> NDArray[np.bool_]:
        """(size,) which coordinates are real numbers."""
        return np.array([not _cells(hole.spec) for hole in self.free], dtype=bool)

    @cached_property
    def cells(self) -> NDArray[np.intp]:
        """(size,) how many distinct values each coordinate has; 0 for a real number."""
        return np.array([_cells(hole.spec) for hole in self.free], dtype=np.intp)

    @cached_property
    def owners(self) -> NDArray[np.intp]:
        """(columns,) the coordinate behind each column of `features`."""
        widths = [_columns(hole.spec) for hole in self.free]
        return np.repeat(np.arange(self.size), widths)

    @cached_property
    def count(self) -> float:
        """How many distinct candidates there are; infinite where a coordinate is a real number."""
        return math.prod(_cells(hole.spec) or math.inf for hole in self.free)

    def decode(self, point: Floats) -> dict[str, Scalar]:
        """Values of all active holes, in hole order.

        Args:
            point: (size,) in [0, 1].
        """
        free = {hole.name: _value(hole.spec, float(u)) for hole, u in zip(self.free, point, strict=True)}
        return {name: free[name] if name in free else self.fixed[name] for name in self.names}

    def encode(self, values: Mapping[str, Scalar]) -> Floats:
        """(size,) the point that `decode` turns into `values`."""
        return np.array([_unit(hole.spec, values[hole.name]) for hole in self.free], dtype=np.float64)

    def snap(self, points: Floats) -> Floats:
        """(n, size) points moved to the middles of their cells, where a coordinate has cells."""
        snapped = np.clip(points, 0.0, 1.0)
        for column, hole in enumerate(self.free):
            if cells := _cells(hole.spec):
                edges = _edges(hole.spec, cells)
                index = np.clip(np.searchsorted(edges, snapped[:, column], side="right") - 1, 0, cells - 1)
                snapped[:, column] = ((edges[1:] + edges[:-1]) / 2)[index]
        return snapped

    def features(self, points: Floats) -> Floats:
        """(n, columns) snapped points for distances: a choice of k becomes k columns, any two choices 1 apart."""
        parts = [np.empty((len(points), 0))]
        for column, hole in enumerate(self.free):
            u = points[:, column]
            if isinstance(hole.spec, ChoiceParam):
                cells = len(hole.spec.choices)
                index = np.minimum((u * cells).astype(np.intp), cells - 1)
                parts.append(np.eye(cells)[index] * math.sqrt(0.5))
            else:
                parts.append(u[:, None])
        return np.concatenate(parts, axis=1)


class Cubes:
    """All structures of a space.

    Args:
        space: the compiled search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._deciding = tuple(dict.fromkeys(name for hole in space.holes for name, _ in hole.when))
        self.structures = tuple(_structure(space, chosen) for chosen in _combinations(space, self._deciding))
        self._index = {self._key(structure.fixed): at for at, structure in enumerate(self.structures)}

    def locate(self, values: Mapping[str, Scalar]) -> tuple[int, Floats] | None:
        """Index of the structure and the point in its cube; None for values that are not (yet) a whole candidate."""
        at = self.cube_of(values)
        if at is None:
            return None
        try:
            return at, self.structures[at].encode(values)
        except ValueError:  # A choice that the space no longer offers.
            return None

    def cube_of(self, values: Mapping[str, Scalar]) -> int | None:
        """Index of the structure alone."""
        at = self._index.get(self._key(values))
        return None if at is None or any(name not in values for name in self.structures[at].names) else at

    def _key(self, values: Mapping[str, Scalar]) -> tuple[Scalar | None, ...]:
        return tuple(values.get(name) for name in self._deciding)


def _combinations(space: SearchSpace, deciding: tuple[str, ...]) -> list[dict[str, Scalar]]:
    found: list[dict[str, Scalar]] = [{}]
    for hole in (hole for hole in space.holes if hole.name in deciding):
        found = list(
            itertools.chain.from_iterable(
                [chosen | {hole.name: choice} for choice in _all(hole.spec)] if hole.active(chosen) else [chosen]
                for chosen in found
            )
        )
    return found


def _structure(space: SearchSpace, chosen: dict[str, Scalar]) -> Structure:
    active = [hole for hole in space.holes if hole.active(chosen)]
    free = tuple(hole for hole in active if hole.name not in chosen and not distribution(hole.spec).single())
    single = {hole.name: _value(hole.spec, 0.5) for hole in active if hole.name not in chosen and hole not in free}
    return Structure(fixed=chosen | single, free=free, names=tuple(hole.name for hole in active))


def _all(spec: ParamSpec) -> tuple[Scalar, ...]:
    """Every value of a hole that decides about others."""
    if isinstance(spec, ChoiceParam):
        return spec.choices
    if isinstance(spec, IntParam):
        return tuple(range(spec.search_low, spec.search_high + 1))
    raise ValueError(f"{spec.name!r} is a real number, so no hole can depend on its value: make it a choice")


def _cells(spec: ParamSpec) -> int:
    """How many distinct values; 0 for a real number."""
    if isinstance(spec, ChoiceParam):
        return len(spec.choices)
    return spec.search_high - spec.search_low + 1 if isinstance(spec, IntParam) else 0


def _columns(spec: ParamSpec) -> int:
    return len(spec.choices) if isinstance(spec, ChoiceParam) else 1


def _edges(spec: ParamSpec, cells: int) -> Floats:
    """(cells + 1,) the borders of the cells, ascending from 0 to 1."""
    if isinstance(spec, IntParam) and spec.log:
        logs = np.log(np.arange(cells + 1) + spec.search_low - 0.5)
        return np.asarray((logs - logs[0]) / (logs[-1] - logs[0]))
    return np.arange(cells + 1) / cells


def _value(spec: ParamSpec, u: float) -> Scalar:
    if cells := _cells(spec):
        index = int(np.clip(np.searchsorted(_edges(spec, cells), u, side="right") - 1, 0, cells - 1))
        return spec.choices[index] if isinstance(spec, ChoiceParam) else spec.search_low + index
    assert not isinstance(spec, ChoiceParam)
    low, high = float(spec.search_low), float(spec.search_high)
    value = math.exp(math.log(low) + u * math.log(high / low)) if spec.log else low + u * (high - low)
    return min(max(value, low), high)


def _unit(spec: ParamSpec, value: Scalar) -> float:
    if cells := _cells(spec):
        index = _index(spec, value)
        edges = _edges(spec, cells)
        return float(edges[index] + edges[index + 1]) / 2
    assert not isinstance(spec, ChoiceParam)
    assert not isinstance(value, str)
    low, high = float(spec.search_low), float(spec.search_high)
    u = math.log(value / low) / math.log(high / low) if spec.log else (value - low) / (high - low)
    return min(max(u, 0.0), 1.0)


def _index(spec: ParamSpec, value: Scalar) -> int:
    """Which cell a value owns.

    Raises:
        ValueError: none.
    """
    if isinstance(spec, ChoiceParam):
        return [(type(choice), choice) for choice in spec.choices].index((type(value), value))
    index = int(value) - int(spec.search_low)
    if not 0 <= index < _cells(spec):
        raise ValueError(f"{value!r} lies outside [{spec.search_low}, {spec.search_high}]: propose another")
    return index
