"""Layer layouts: one file each, index arithmetic only."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from core.errors import LayoutError, RecipeError, UnknownLayoutError
from core.params import IntParam, LayersParam, check_layers, check_value
from core.recipe.limits import MAX_LAYERS


@dataclass(frozen=True)
class LayoutPreset:
    """A preset: its parameters and the pure function from a layer count to source layer indices in output order.

    Attributes:
        name, summary: for people.
        params: whole numbers, always given to `indices`.
        lists: lists of layers; one that is not required reaches `indices` only where it was given.
        indices: (layer count, parameters) to layer indices; raises LayoutError where it does not fit the count.
    """

    name: str
    summary: str
    params: tuple[IntParam, ...]
    indices: Callable[[int, Mapping[str, Any]], tuple[int, ...]]
    lists: tuple[LayersParam, ...] = ()


@cache
def presets() -> dict[str, LayoutPreset]:
    """Every preset by name, scanned in sorted order; a name taken twice is refused."""
    found: dict[str, LayoutPreset] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        preset: LayoutPreset = importlib.import_module(f"{__name__}.{module}").PRESET
        if preset.name in found:
            raise ValueError(f"layout preset {preset.name!r} is defined twice: rename one")
        found[preset.name] = preset
    return dict(sorted(found.items()))


def layout_indices(name: str, layers: int, params: Mapping[str, Any]) -> tuple[int, ...]:
    """Source layer indices of a preset over a stack of `layers`.

    Raises:
        UnknownLayoutError: no such preset.
        RecipeError: an unknown or illegal parameter.
        LayoutError: the preset does not fit that many layers, or gives more than a recipe may have.
    """
    known = presets()
    if name not in known:
        raise UnknownLayoutError.suggest(name, known, where="preset")
    preset = known[name]
    takes = [spec.name for spec in preset.params] + [spec.name for spec in preset.lists]
    unknown = sorted(set(params) - set(takes))
    if unknown:
        raise RecipeError(f"layout {name!r} has no parameter {unknown[0]!r}: it takes {takes!r}")
    filled: dict[str, Any] = {
        s.name: int(check_value(s, params.get(s.name, s.default), where=f"{name}.{s.name}")) for s in preset.params
    }
    for spec in preset.lists:
        if spec.required or spec.name in params:
            filled[spec.name] = check_layers(spec, params.get(spec.name), layers, where=f"{name}.{spec.name}")
    found = preset.indices(layers, filled)
    if len(found) > MAX_LAYERS:
        raise LayoutError(
            f"a recipe may have at most {MAX_LAYERS} layers, but {name!r} makes {len(found)}: start from less",
            where="layout",
        )
    return found
