"""The forms a parameter's value may take, and the one number each tensor gets from them.

    0.5                                        the same everywhere
    [0.0, 0.3, 1.0]                            a layer gradient: piecewise linear over the stack
    [false, true]                              a layer gradient of choices: each holds until the next one's point
    {"groups": [0.2, 0.9]}                     piecewise constant: the stack cut into equal groups
    {"a": 0.5, "b": [0.1, 0.9]}                per source; each value again in any form
    [{"filter": "mlp", "value": 1.0},
     {"value": 0.5}]                           by tensor name; the first entry whose filter is a substring wins

Lookup and gradients follow mergekit: a gradient runs over the layers of its slice (a single layer takes the last
value); embedding, final norm and head take the gradient's first value. A filter is looked for in the tensor's full
name: its name in the candidate, or for a value per source its name in that source. Groups are ours: the embedding
belongs to the first group, final norm and head to the last.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import RecipeError
from core.params import ChoiceParam, FloatParam, IntParam, Scalar, check_value, finite

#: Points of a gradient, groups, filters, or sources in one value.
MAX_POINTS = 256
#: Levels of forms within forms: sources of filters of groups of gradients need four.
MAX_NESTING = 8
#: The key of the groups form, which no source may be called.
GROUPS = "groups"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor sits: layer `index` of `count` in its slice, or before (`embed`) or after (`head`) the stack.

    `tensor` is its full name, in the candidate or in one of its sources.
    """

    tensor: str
    index: int = 0
    count: int = 1
    part: Literal["embed", "layer", "head"] = "layer"


def pick(spec: FloatParam | IntParam | ChoiceParam, value: Any, place: Place, source: str | None = None) -> Scalar:
    """The one legal number a tensor gets.

    Args:
        spec: the parameter.
        value: in any of the forms above; None takes the default.
        place: the tensor and its position.
        source: the source it is for, where the parameter has one value per source.

    Where filters meet nothing, it is the default, as for None.

    Raises:
        RecipeError: a malformed value, a missing source or a number out of bounds.
    """
    where = f"{spec.name}[{source}]" if source else spec.name
    if value is None:
        return spec.default
    scalar = _scalar(value, place, source, where)
    return spec.default if scalar is None else check_value(spec, scalar, where=where)


def check_values(
    spec: FloatParam | IntParam | ChoiceParam, value: Any, sources: Collection[str] = (), where: str | None = None
) -> None:
    """Check every number and every choice within a value, whether or not a tensor reads it.

    Args:
        spec: the parameter.
        value: in any of the forms above; None takes the default.
        sources: those that may have a value of their own; none where there is one value for all.

    Raises:
        RecipeError: a malformed value, a source that has no say, a filter that is not text, a number out of bounds.
    """
    where = where or spec.name
    if value is None:
        return
    if isinstance(value, bool | int | float | str):
        check_value(spec, value, where=where)
    elif isinstance(value, dict) and set(value) == {GROUPS}:
        for inner in _listed(value[GROUPS], where):
            check_values(spec, inner, (), where)
    elif isinstance(value, dict):
        for source, inner in _by_source(value, sources, where):
            check_values(spec, inner, (), f"{where}[{source}]")
    elif isinstance(value, list | tuple) and value and all(isinstance(entry, dict) for entry in value):
        for inner in _filtered(value, where):
            check_values(spec, inner, sources, where)
    elif _is_gradient(value):
        for point in value:
            check_value(spec, point, where=where)
    else:
        raise _malformed(value, where)


def check_form(value: Any, where: str) -> None:
    """Check that a value is not larger than a form may be, without following it any deeper.

    Raises:
        RecipeError: more entries or levels than `MAX_POINTS` and `MAX_NESTING`.
    """
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [inner for each in level for inner in _entries(each, where)]
        if not level:
            return
    raise RecipeError(f"{where} may be nested at most {MAX_NESTING} deep: write it flatter", where=where)


def has_groups(value: Any) -> bool:
    """Whether a value, which `check_form` has passed, is given for layer groups, at any depth."""
    if isinstance(value, dict) and set(value) == {GROUPS}:
        return True
    return any(has_groups(inner) for inner in _entries(value, "value"))


def filters_in(value: Any) -> Iterator[str]:
    """The texts that a value's filters look for, at any depth; `check_values` has passed it."""
    if isinstance(value, list | tuple):
        yield from (e["filter"] for e in value if _is_filter(e) and e.get("filter") not in (None, "*"))
    for inner in _entries(value, "value"):
        yield from filters_in(inner)


def _entries(value: Any, where: str) -> list[Any]:
    """The values within a value; a filter entry is one level with the list that it stands in."""
    if isinstance(value, dict):
        found = list(value.values())
    elif isinstance(value, list | tuple):
        found = [entry.get("value") if _is_filter(entry) else entry for entry in value]
    else:
        return []
    if len(found) > MAX_POINTS:
        raise RecipeError(
            f"{where} may have at most {MAX_POINTS} entries, but has {len(found)}: give less", where=where
        )
    return found


def has_filters(value: Any) -> bool:
    """Whether a value, in any of the forms above, may give two tensors of one layer different numbers."""
    if isinstance(value, dict):
        return any(map(has_filters, value.values()))
    return isinstance(value, list | tuple) and any(isinstance(entry, dict) or has_filters(entry) for entry in value)


def _is_filter(entry: Any) -> bool:
    return isinstance(entry, dict) and set(entry) <= {"filter", "value"}


def _scalar(value: Any, place: Place, source: str | None, where: str) -> Scalar | None:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return _from_mapping(value, place, source, where)
    if isinstance(value, list | tuple) and value:
        if all(isinstance(entry, dict) for entry in value):
            return _from_filters(value, place, source, where)
        if _is_gradient(value):
            return _steps(value, place) if isinstance(value[0], bool | str) else _gradient(value, place, where)
    raise _malformed(value, where)


def _malformed(value: Any, where: str) -> RecipeError:
    return RecipeError(
        f"{where} must be a number, a gradient, groups, per-source values or filters, but got {reprlib.repr(value)}",
        where=where,
    )


def _is_gradient(value: Any) -> bool:
    """Whether a value is a list of numbers, of booleans or of texts."""
    if not isinstance(value, list | tuple) or not value:
        return False
    kinds = {bool if isinstance(e, bool) else str if isinstance(e, str) else float for e in value}
    return len(kinds) == 1 and all(isinstance(e, bool | int | float | str) for e in value)


def _by_source(value: Mapping[str, Any], sources: Collection[str], where: str) -> Iterable[tuple[str, Any]]:
    if not sources:
        raise RecipeError(f"{where} has one value for all sources, but got {value!r}: give a number", where=where)
    odd = [name for name in value if name not in sources]
    if odd:
        raise RecipeError(
            f"{where} may have a value for each of {sorted(sources)!r}, but got one for {odd[0]!r}: leave it out, or "
            "correct the name",
            where=where,
        )
    return value.items()


def _filtered(entries: Iterable[Mapping[str, Any]], where: str) -> Iterator[Any]:
    for entry in entries:
        if not set(entry) <= {"filter", "value"} or "value" not in entry:
            raise RecipeError(f"{where}: a filter entry has `filter` and `value`, but got {entry!r}", where=where)
        if not isinstance(entry.get("filter"), str | None):
            raise RecipeError(
                f"{where}: a filter is a part of tensor names, but got {entry['filter']!r}: write text, or '*' for all",
                where=where,
            )
        yield entry["value"]


def _listed(values: Any, where: str) -> Sequence[Any]:
    if not isinstance(values, list | tuple) or not values:
        raise RecipeError(f"{where}: groups must be a list of numbers, but got {values!r}", where=where)
    return values


def _from_mapping(value: dict[str, Any], place: Place, source: str | None, where: str) -> Scalar | None:
    if set(value) == {GROUPS}:
        return _grouped(value[GROUPS], place, where)
    if source is None:
        raise RecipeError(f"{where} has one value for all sources, but got {value!r}: give a number", where=where)
    if source not in value:
        raise RecipeError(f"{where} is missing among {sorted(value)!r}: give every source a value", where=where)
    return _scalar(value[source], place, None, where)


def _from_filters(entries: Any, place: Place, source: str | None, where: str) -> Scalar | None:
    for entry, inner in zip(entries, _filtered(entries, where), strict=True):
        wanted = entry.get("filter")
        if wanted in (None, "*") or wanted in place.tensor:
            return _scalar(inner, place, source, where)
    return None


def _gradient(values: Any, place: Place, where: str) -> float:
    if place.part != "layer":
        return finite(values[0], where)
    scaled = _position(place) * (len(values) - 1)
    left = min(int(scaled), len(values) - 2) if len(values) > 1 else 0
    right = min(left + 1, len(values) - 1)
    low, high = finite(values[left], where), finite(values[right], where)
    # As mergekit writes it, to the last bit; and exact at the gradient's own points.
    return (1.0 - (scaled - left)) * low + (scaled - left) * high


def _steps(values: Any, place: Place) -> Scalar:
    """The choice at the last point reached."""
    chosen: Scalar = values[int(_position(place) * (len(values) - 1)) if place.part == "layer" else 0]
    return chosen


def _position(place: Place) -> float:
    """0 at a slice's first layer, 1 at its last."""
    return place.index / (place.count - 1) if place.count > 1 else 1.0


def _grouped(values: Any, place: Place, where: str) -> Scalar | None:
    values = _listed(values, where)
    if place.part == "embed":
        return _scalar(values[0], place, None, where)
    if place.part == "head":
        return _scalar(values[-1], place, None, where)
    return _scalar(values[group_of(place.index, place.count, len(values))], place, None, where)


def group_of(layer: int, layers: int, groups: int) -> int:
    """The group of a layer when the stack is cut into equal contiguous groups."""
    return min(layer * groups // layers, groups - 1)


def reached(share: float, place: Place) -> float:
    """1 where a tensor lies within the first `share` of the stack, 0 beyond.

    Layers count in full, the nearest whole number of them; the embedding is within any share above 0, final norm and
    head are within 1 only.
    """
    if place.part == "layer":
        within = place.index < int(share * place.count + 0.5)
    else:
        within = share >= 1.0 if place.part == "head" else share > 0.0
    return float(within)
