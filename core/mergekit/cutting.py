"""Slices as mergekit has them: consecutive layers, and values that hold for a whole slice or run along it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import MergekitError
from core.mergekit.settings import is_filters
from core.recipe.short import Slice
from core.recipe.values import GROUPS, group_of


@dataclass(frozen=True)
class Cut:
    """A slice of consecutive layers; `layers` has one range per source, or None where whole models are merged."""

    sources: tuple[str, ...]
    layers: tuple[tuple[int, int], ...] | None
    method: str
    base: str | None
    params: Mapping[str, Any]


def cuts_of(part: Slice) -> tuple[Cut, ...]:
    """The slice in pieces: cut where a source's layers jump and where the layer groups of a value meet.

    Raises:
        MergekitError: a gradient, which cannot be cut; groups whose last has no layer.
    """
    stacks = [source.indices() for source in part.sources]
    count = min(len(stack) for stack in stacks)
    starts = sorted({0, *_jumps(stacks, count), *_borders(part.params, count)})
    if len(starts) > 1 and any(has_gradient(value) for value in part.params.values()):
        raise MergekitError(
            "mergekit runs a gradient along one slice of consecutive layers, but this slice has to be cut at "
            f"{starts[1:]!r}: write the values per layer",
            where="slices",
        )
    stops = [*starts[1:], count]
    return tuple(
        Cut(
            sources=tuple(source.source for source in part.sources),
            layers=tuple((stack[start], stack[stop - 1] + 1) for stack in stacks),
            method=part.method,
            base=part.base,
            params={name: ungrouped(value, start, count) for name, value in part.params.items()},
        )
        for start, stop in zip(starts, stops, strict=True)
    )


def has_gradient(value: Any) -> bool:
    """Whether a layer gradient stands anywhere in a value."""
    return any(isinstance(each, list | tuple) and not is_filters(each) and len(each) > 1 for each in _walk(value))


def ungrouped(value: Any, layer: int, count: int) -> Any:
    """The value with its groups replaced by the one that the layer is in."""
    if _is_groups(value):
        values = value[GROUPS]
        if len(values) > count:
            raise MergekitError(
                f"mergekit has no values without a layer, but there are {len(values)} groups for {count} layers: "
                "take fewer",
                where=GROUPS,
            )
        return values[group_of(layer, count, len(values))]
    if isinstance(value, Mapping):
        return {key: ungrouped(inner, layer, count) for key, inner in value.items()}
    if is_filters(value):
        return [ungrouped(entry, layer, count) for entry in value]
    return value


def _is_groups(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {GROUPS} and isinstance(value[GROUPS], list | tuple)


def _walk(value: Any) -> Iterable[Any]:
    """A value and every value within it, groups not opened where they are lists of numbers."""
    yield value
    if _is_groups(value):
        for inner in value[GROUPS]:
            yield from _walk(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _walk(inner)
    elif is_filters(value):
        for entry in value:
            yield from _walk(entry.get("value"))


def _jumps(stacks: Sequence[Sequence[int]], count: int) -> set[int]:
    return {i for stack in stacks for i in range(1, count) if stack[i] != stack[i - 1] + 1}


def _borders(params: Mapping[str, Any], count: int) -> set[int]:
    """Where one group ends and the next begins."""
    sizes = {len(each[GROUPS]) for value in params.values() for each in _walk(value) if _is_groups(each)}
    return {i for size in sizes for i in range(1, count) if group_of(i, count, size) != group_of(i - 1, count, size)}
