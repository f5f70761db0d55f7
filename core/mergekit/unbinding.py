"""A recipe's parameters as mergekit's settings: of the whole slice, or of one of its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.catalog import MethodInfo
from core.errors import MergekitError
from core.mergekit.binding import specs_of
from core.mergekit.cutting import Cut
from core.mergekit.methods import REQUIRED, Method, Parameter
from core.mergekit.settings import complete, is_filters
from core.params import ParamSpec, Scalar


@dataclass(frozen=True)
class Settings:
    """What stands in the `parameters` of a slice, and in those of each of its models."""

    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)


def unbound(method: Method, info: MethodInfo, cut: Cut, refused: Callable[[MergekitError], None]) -> Settings:
    """The settings under which mergekit gives every tensor what the recipe gives it.

    Args:
        method, info: mergekit's method and ours.
        cut: with the recipe's values.
        refused: told every value that mergekit cannot be given.
    """
    specs, effective = specs_of(info), {p.name: p for p in method.parameters if p.effect}
    found = Settings(own={source: {} for source in cut.sources if source != cut.base})
    for name in (*specs, *(name for name in cut.params if name not in specs)):
        try:
            if name in effective:
                _settle(effective[name], cut, specs[name].default, found)
            else:
                _must_be_mergekits(name, cut.params.get(name), specs.get(name), method)
        except MergekitError as error:
            refused(error)
    return found


def _must_be_mergekits(name: str, value: Any, spec: ParamSpec | None, method: Method) -> None:
    """Of what mergekit cannot be given, nothing but what it means anyway."""
    if spec is None:
        raise MergekitError(f"{method.name!r} has no parameter {name!r}: remove it", where=name)
    meant = method.conventions.get(name, spec.default)
    if (spec.default if value is None else value) != meant:
        raise MergekitError(
            f"mergekit's {method.name} always has {name} {meant!r}, but the recipe "
            f"{spec.default if value is None else value!r:.100}: change it",
            where=name,
        )


def _settle(parameter: Parameter, cut: Cut, default: Scalar, found: Settings) -> None:
    given = cut.params.get(parameter.name)
    value = default if given is None else given
    if not _by_source(value):
        setting = _setting(parameter, complete(value, default))
        if parameter.default is REQUIRED or setting != parameter.default:
            found.shared[parameter.name] = setting
        return
    if parameter.per == "all":
        raise MergekitError(
            f"{parameter.name!r} is one value for all models in mergekit, but got {value!r:.200}: give one",
            where=parameter.name,
        )
    for source, settings in found.own.items():
        settings[parameter.name] = _setting(parameter, complete(_for_source(value, source), default))


def _by_source(value: Any) -> bool:
    if is_filters(value):
        return any(_by_source(entry.get("value")) for entry in value)
    return isinstance(value, Mapping)


def _for_source(value: Any, source: str) -> Any:
    if is_filters(value):
        return [{**entry, "value": _for_source(entry.get("value"), source)} for entry in value]
    if not isinstance(value, Mapping):
        return value
    if source not in value:
        raise MergekitError(f"values per source need one for {source!r}, but got {sorted(value)!r}: add it")
    return value[source]


def _setting(parameter: Parameter, value: Any) -> Any:
    if is_filters(value):
        return [_condition(parameter, entry) for entry in value]
    return _plain(parameter, value)


def _condition(parameter: Parameter, entry: Mapping[str, Any]) -> dict[str, Any]:
    if is_filters(entry.get("value")):
        raise MergekitError(
            f"mergekit has no filters within filters, but {parameter.name!r} has {entry!r:.200}: write one list",
            where=parameter.name,
        )
    condition = {"value": _plain(parameter, entry.get("value"))}
    return {"filter": entry["filter"], **condition} if entry.get("filter") not in (None, "*") else condition


def _plain(parameter: Parameter, value: Any) -> Any:
    """A scalar or a gradient in mergekit's own values."""
    if isinstance(value, list | tuple) and value:
        return [_plain(parameter, each) for each in value]
    theirs = {ours: value for value, ours in parameter.ours.items()}
    if theirs:
        if value not in theirs:
            raise MergekitError(
                f"{parameter.name} must be one of {sorted(map(str, theirs))!r} there, but is {value!r:.80}: change it",
                where=parameter.name,
            )
        return theirs[value]
    if isinstance(value, bool | int | float):
        return value
    raise MergekitError(
        f"mergekit cannot be given {parameter.name} {value!r:.100}: write a number", where=parameter.name
    )
