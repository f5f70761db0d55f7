"""The smooth part of a search space: which values a loss has a slope in, and which tensors each of them reaches.

A method says in which of its parameters its result is differentiable (`MethodInfo.smooth`). An axis is one number that
a refinement moves: the value of one such hole, which reaches many tensors, or the value of one tensor alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from core.architectures import architecture_of
from core.catalog import catalog
from core.params import FloatParam, Scalar
from core.recipe import Recipe, ResolvedRecipe, resolve
from core.recipe.ingredients import Registered
from core.recipe.output import OutputTensor, walk
from core.recipe.resolve import resolve_named
from core.space import Hole, SearchSpace, Values


class Coordinate(NamedTuple):
    """One number of a resolved recipe: of one output tensor, one parameter, one source.

    `source` is a position among the recipe's sources; None where the parameter holds for the whole tensor.
    """

    tensor: str
    param: str
    source: int | None


@dataclass(frozen=True, slots=True)
class Axis:
    """One number that a refinement moves within its searched interval.

    Attributes:
        name: the hole's; followed by the tensor where the axis is one tensor's alone.
        low, high: the hole's searched interval.
        start: the value at the start.
        coordinates: what of the resolved recipe has this value.
    """

    name: str
    low: float
    high: float
    start: float
    coordinates: tuple[Coordinate, ...]

    def slope(self, slopes: Mapping[Coordinate, float]) -> float:
        """The slope along the axis: the sum over all that it reaches."""
        return sum(slopes.get(coordinate, 0.0) for coordinate in self.coordinates)


def smooth_holes(space: SearchSpace, values: Values) -> tuple[Hole, ...]:
    """The active holes in which the candidate's loss has a slope; none of a layout."""
    recipe = space.fill(values)
    if recipe.merge is None:
        return ()
    method = recipe.merge.method
    found = []
    for hole in space.active(values):
        parts = hole.name.split(".")
        named = parts[:2] == ["merge", method] and len(parts) > 2 and parts[2] in catalog().method(method).smooth
        if named and isinstance(hole.spec, FloatParam) and hole.spec.search_low < hole.spec.search_high:
            found.append(hole)
    return tuple(found)


def axes(space: SearchSpace, values: Values, models: Registered) -> tuple[Axis, ...]:
    """One axis for every smooth hole that reaches a tensor.

    Args:
        space: the compiled search space.
        values: of the start, one per active hole.
        models: registered models by the names that the space uses.

    Raises:
        As `SearchSpace.fill` and `core.recipe.resolve`.
    """
    holes = smooth_holes(space, values)
    # Each hole gets a number of its own, and whatever the resolved recipe has that number for is the hole's.
    marks = {hole.name: _mark(hole, place, len(holes)) for place, hole in enumerate(holes)}
    reached: dict[tuple[str, float], list[Coordinate]] = {}
    if holes:
        for coordinate, value in numbers(resolve(space.fill({**values, **marks}), models)):
            reached.setdefault((coordinate.param, value), []).append(coordinate)
    found = []
    for hole in holes:
        mine = reached.get((_param(hole), marks[hole.name]), [])
        if mine:
            assert isinstance(hole.spec, FloatParam)
            low, high = hole.spec.search_low, hole.spec.search_high
            found.append(Axis(hole.name, low, high, float(values[hole.name]), tuple(mine)))
    return tuple(found)


def by_tensor(coarse: Sequence[Axis]) -> tuple[Axis, ...]:
    """The same numbers, each tensor's an axis of its own."""
    return tuple(
        replace(axis, name=f"{axis.name}@{coordinate.tensor}", coordinates=(coordinate,))
        for axis in coarse
        for coordinate in axis.coordinates
    )


def numbers(resolved: ResolvedRecipe) -> Iterator[tuple[Coordinate, float]]:
    """Every real value of a resolved recipe with its place."""
    for output in walk(resolved):
        for param, value in output.params.items():
            if isinstance(value, float):
                yield Coordinate(output.name, param, None), value
        for (source, _), values in zip(output.entry.sources, output.source_params, strict=True):
            for param, value in values.items():
                if isinstance(value, float):
                    yield Coordinate(output.name, param, source), value


def with_tensor_values(recipe: Recipe, cells: Mapping[Coordinate, float], models: Registered) -> Recipe:
    """The recipe with numbers of its own for single tensors: filters by name, each with one value per layer.

    Args:
        recipe: a merge.
        cells: for a parameter that is named, the value of every tensor (and of every source, where it has one each).
        models: registered models by name.

    Raises:
        RecipeError: more layers than a value can have groups.
    """
    assert recipe.merge is not None
    resolved, names = resolve_named(recipe, models)
    outputs = {output.name: output for output in walk(resolved)}
    own: dict[tuple[str, int | None], dict[str, float]] = {}
    for coordinate, value in cells.items():
        own.setdefault((coordinate.param, coordinate.source), {})[coordinate.tensor] = value
    params: dict[str, Any] = dict(recipe.merge.params)
    by_source: dict[str, dict[str, Any]] = {}
    for (param, source), values in own.items():
        form = _form(resolved, outputs, values)
        if source is None:
            params[param] = form
        else:
            by_source.setdefault(param, {})[names[source]] = form
    params.update(by_source)
    return recipe.evolve(merge=recipe.merge.evolve(params=params))


def _form(
    resolved: ResolvedRecipe, outputs: Mapping[str, OutputTensor], values: Mapping[str, float]
) -> list[dict[str, Scalar | dict[str, list[float]]]]:
    """Values by tensor as filters. Longer names come first, so that one that is part of another takes nothing of it."""
    architecture, depth = architecture_of(resolved.model_type), len(resolved.layers)
    found: dict[str, Scalar | dict[str, list[float]]] = {}
    for name, value in values.items():
        suffix = outputs[name].suffix
        if suffix == name:
            found[name] = value
        elif suffix not in found:
            stack = [values.get(architecture.layer_tensor(layer, suffix), value) for layer in range(depth)]
            found[suffix] = {"groups": stack}
    return [{"filter": name, "value": found[name]} for name in sorted(found, key=lambda name: (-len(name), name))]


def _mark(hole: Hole, place: int, count: int) -> float:
    assert isinstance(hole.spec, FloatParam)
    low, high = hole.spec.search_low, hole.spec.search_high
    # Away from round numbers, which other tensors may have by default.
    return low + (high - low) * (place + 0.6180339887) / (count + 0.2360679775)


def _param(hole: Hole) -> str:
    return hole.name.split(".")[2]
