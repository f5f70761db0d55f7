"""Failures as people read them: `code: message`, one line, no traceback."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Iterator

import pydantic

from core import jobs, objective, space
from core.errors import HuarizoError, InvalidInputError
from core.noun import Noun
from core.recipe import short
from huarizo.client import ApiProblem


def lines_of(error: Exception) -> list[str]:
    """What to print for an error; several lines only where several fields are wrong."""
    match error:
        case HuarizoError():
            return [_line(error.code, error.message, error.where)]
        case ApiProblem():
            if len(error.errors) > 1:
                return [_line(error.code, message, where) for where, message in error.errors]
            return [_line(error.code, str(error), error.where)]
        case pydantic.ValidationError():
            return [_line(InvalidInputError.code, message, where) for where, message in broken_rules(error)]
        case OSError():
            return [_line("os_error", str(error), None)]
    return [_line("internal", f"{type(error).__name__}: {error} (run again with --debug, before the verb)", None)]


def broken_rules(error: pydantic.ValidationError) -> list[tuple[str, str]]:
    """Every broken rule as (where, message); an unknown field gets the known ones it resembles."""
    return [(_where(rule["loc"]), _message(rule)) for rule in error.errors(include_url=False)]


def error_of(code: str, message: str) -> HuarizoError:
    """The error of a code that another process reported."""
    kinds = {kind.code: kind for kind in _tree(HuarizoError)}
    return kinds.get(code, HuarizoError)(message)


def read_object(text: str, what: str) -> dict[str, object]:
    """Parse JSON that must be an object.

    Raises:
        InvalidInputError: it is not; the message says where.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"{what} must be JSON, but line {error.lineno} column {error.colno} is not: {error.msg}"
        ) from error
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what} must be a JSON object {{...}}, but got {type(value).__name__}")
    return value


def _line(code: str, message: str, where: str | None) -> str:
    return f"huarizo: {code}: {where + ': ' if where else ''}{message}"


def _where(path: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in path)


def _message(rule: object) -> str:
    assert isinstance(rule, dict)
    message = str(rule["msg"]).removeprefix("Value error, ")
    if rule["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(rule["loc"][-1]), _field_names(), n=3, cutoff=0.65)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "remove it"
        return f"unknown field {str(rule['loc'][-1])!r}: {hint}"
    if rule["type"] == "missing":
        return "this field is required: add it"
    return message if isinstance(rule["input"], dict | list) else f"{message}, but got {rule['input']!r}"


def _field_names() -> list[str]:
    nouns = (
        kind
        for module in (jobs, objective, space, short)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Noun)
    )
    return sorted({name for kind in nouns for name in kind.model_fields})


def _tree(kind: type[HuarizoError]) -> Iterator[type[HuarizoError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
