"""Merge methods: one file each, found by name. Every module here defines METHOD."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache

from core.errors import UnknownMethodError
from merging.kernels import Method


@cache
def methods() -> dict[str, Method]:
    """Every method by name, scanned in sorted order; a name taken twice is refused."""
    return register(
        importlib.import_module(f"{__name__}.{module}").METHOD
        for module in sorted(m.name for m in pkgutil.iter_modules(__path__))
    )


def register(found: Iterable[Method]) -> dict[str, Method]:
    """The methods by name.

    Raises:
        ValueError: two methods have one name.
    """
    table: dict[str, Method] = {}
    for method in found:
        if method.info.name in table:
            raise ValueError(f"merge method {method.info.name!r} is defined twice: rename one")
        table[method.info.name] = method
    return table


def method_of(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownMethodError: no such method; suggests the nearest names.
    """
    table = methods()
    if name not in table:
        raise UnknownMethodError.suggest(name, table, where="method")
    return table[name]
