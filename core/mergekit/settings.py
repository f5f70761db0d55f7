"""A parameter's settings, from a slice's source up to the whole configuration, as one value of a recipe.

mergekit asks the scopes in order (source, slice, module, configuration) and takes the first that has a value for the
tensor: a scope whose filters all miss is passed over. One list of filters says the same: those of all scopes in turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.errors import MergekitError
from core.mergekit.methods import Parameter
from core.params import Scalar

Scope = Mapping[str, Any]
#: What pydantic, which reads mergekit's values, takes for a boolean.
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")


def settled(parameter: Parameter, scopes: Sequence[tuple[str, Scope]]) -> Any:
    """The value of a parameter in the recipe's forms, or None where no scope has one.

    Args:
        parameter: which.
        scopes: the parameters of every scope with the scope's name, the nearest first.

    Raises:
        MergekitError: a value that mergekit would not take.
    """
    chain: list[dict[str, Any]] = []
    for name, scope in scopes:
        if parameter.name in scope:
            chain += _entries(parameter, scope[parameter.name], f"{name}{parameter.name}")
        if chain and "filter" not in chain[-1]:
            break
    return chain[0]["value"] if chain and "filter" not in chain[0] else (chain or None)


def complete(value: Any, otherwise: Any) -> Any:
    """The value, with another one for the tensors that none of its filters meets."""
    if is_filters(value) and "filter" in value[-1] and otherwise is not None:
        return [*value, {"value": otherwise}]
    return value


def is_filters(value: Any) -> bool:
    """Whether a value of a recipe is a list of filters."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _entries(parameter: Parameter, setting: Any, where: str) -> Iterable[dict[str, Any]]:
    """A setting as filters up to the first that every tensor meets."""
    conditions = setting if isinstance(setting, list | tuple) else [setting]
    if not conditions:
        raise _malformed(where, setting)
    if not any(isinstance(condition, Mapping) for condition in conditions):
        return [{"value": _value(parameter, setting, where)}]
    found: list[dict[str, Any]] = []
    for condition in conditions:
        if not isinstance(condition, Mapping) or "value" not in condition or not set(condition) <= {"filter", "value"}:
            raise _malformed(where, setting)
        value, wanted = _value(parameter, condition["value"], where), condition.get("filter")
        if wanted in (None, "", "*"):
            return [*found, {"value": value}]
        if not isinstance(wanted, str):
            raise _malformed(where, setting)
        found.append({"filter": wanted, "value": value})
    return found


def _value(parameter: Parameter, value: Any, where: str) -> Any:
    """A scalar or a gradient."""
    if isinstance(value, list | tuple):
        if not value:
            raise _malformed(where, value)
        return [_scalar(parameter, each, where) for each in value]
    return _scalar(parameter, value, where)


def _scalar(parameter: Parameter, value: Any, where: str) -> Scalar:
    try:
        read = _boolean(value) if parameter.kind == "bool" else _number(parameter, value)
    except (ValueError, OverflowError):
        kind = {"float": "a number", "int": "a whole number", "bool": "true or false"}[parameter.kind]
        raise MergekitError(f"{where} must be {kind}, but got {value!r:.100}: correct it", where=where) from None
    return parameter.ours.get(read, read)


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


def _number(parameter: Parameter, value: Any) -> float | int:
    """YAML 1.1 reads 1e-5 as text; mergekit takes it for the number it looks like."""
    if not isinstance(value, bool | int | float | str):
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    if parameter.kind == "float":
        return number
    if number != int(number):
        raise ValueError
    return int(number)


def _malformed(where: str, value: Any) -> MergekitError:
    return MergekitError(
        f"{where} must be a value, a gradient or a list of {{filter, value}}, but got {value!r:.100}: correct it",
        where=where,
    )
