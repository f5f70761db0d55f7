"""Parameter specifications: what a method, layout or strategy can be given, and what a search may vary."""

from __future__ import annotations

import math
import reprlib
from typing import Annotated, Any, Literal

from pydantic import Field

from core.errors import LayoutError, RecipeError
from core.noun import Noun

Scope = Literal["recipe", "source", "layer"]
Scalar = bool | int | float | str


class FloatParam(Noun):
    """A real parameter.

    Attributes:
        low, high: the legal bounds, inclusive; None is unbounded.
        search_low, search_high: the interval a search draws from by default.
        log: search on a log scale.
        searched: whether a search varies it by default.
        scope: `recipe` one value, `source` one value per source (and per layer), `layer` one value per layer.
        implied: a resolved recipe that does not name it means the default; so a parameter can come to a method without
            another digest for the recipes there were.
        reach: the value is a share of the stack, from the embedding up; a resolved recipe says 1 of the tensors within
            it and 0 of those beyond.
    """

    kind: Literal["float"] = "float"
    name: str
    default: float
    low: float | None = None
    high: float | None = None
    search_low: float
    search_high: float
    log: bool = False
    searched: bool = True
    scope: Scope = "layer"
    about: str = ""
    implied: Annotated[bool, Field(exclude_if=lambda implied: not implied)] = False
    reach: Annotated[bool, Field(exclude_if=lambda reach: not reach)] = False


class IntParam(Noun):
    """An integer parameter; attributes as in FloatParam.

    Attributes:
        depth_share: of a layout, the largest searched value as a share of the stack's depth.
    """

    kind: Literal["int"] = "int"
    name: str
    default: int
    low: int | None = None
    high: int | None = None
    search_low: int
    search_high: int
    log: bool = False
    searched: bool = True
    scope: Scope = "recipe"
    about: str = ""
    depth_share: Annotated[float, Field(gt=0, le=1, exclude_if=lambda share: share == 0.5)] = 0.5
    implied: Annotated[bool, Field(exclude_if=lambda implied: not implied)] = False


class ChoiceParam(Noun):
    """One of several values; attributes as in FloatParam.

    Attributes:
        divides: where it is true, the sum of the weights is divided by whatever it is, so that it must not be 0.
    """

    kind: Literal["choice"] = "choice"
    name: str
    default: Scalar
    choices: tuple[Scalar, ...]
    searched: bool = False
    scope: Scope = "recipe"
    about: str = ""
    implied: Annotated[bool, Field(exclude_if=lambda implied: not implied)] = False
    divides: Annotated[bool, Field(exclude_if=lambda divides: not divides)] = False


class LayersParam(Noun):
    """A list of layer indices that a layout takes. No search varies it: layouts that need one are written by hand."""

    name: str
    required: bool = False
    about: str = ""


ParamSpec = Annotated[FloatParam | IntParam | ChoiceParam, Field(discriminator="kind")]


def check_value(spec: FloatParam | IntParam | ChoiceParam, value: Scalar, *, where: str) -> Scalar:
    """The value in its canonical type, if it is legal.

    Raises:
        RecipeError: wrong type or out of bounds; names the parameter, the value and the bounds.
    """
    if isinstance(spec, ChoiceParam):
        if not any(type(value) is type(choice) and value == choice for choice in spec.choices):
            shown = reprlib.repr(value)
            raise RecipeError(f"{where} must be one of {list(spec.choices)!r}, but got {shown}", where=where)
        return value
    kind = "a whole number" if isinstance(spec, IntParam) else "a number"
    if isinstance(value, bool | str):
        raise RecipeError(f"{where} must be {kind}, but got {value!r}", where=where)
    finite(value, where)
    if isinstance(spec, IntParam) and int(value) != value:
        raise RecipeError(f"{where} must be {kind}, but got {value!r}", where=where)
    if (spec.low is not None and value < spec.low) or (spec.high is not None and value > spec.high):
        raise RecipeError(f"{where} must lie in [{spec.low}, {spec.high}], but got {value!r}", where=where)
    return int(value) if isinstance(spec, IntParam) else float(value)


def check_layers(spec: LayersParam, value: Any, depth: int, *, where: str) -> tuple[int, ...]:
    """The layer indices, if a stack of `depth` layers has them all.

    Raises:
        RecipeError: no list of whole numbers.
        LayoutError: a layer that the stack does not have.
    """
    if not isinstance(value, list | tuple) or not value or any(type(index) is not int for index in value):
        raise RecipeError(f"{where} must be a list of layers, but got {reprlib.repr(value)}", where=where)
    outside = [index for index in value if not 0 <= index < depth]
    if outside:
        raise LayoutError(f"{where} names layer {outside[0]!r}, but there are 0 to {depth - 1}: lower it", where=where)
    return tuple(value)


def finite(value: float, where: str) -> float:
    """The value as a float.

    Raises:
        RecipeError: NaN, infinite, or an integer that no float can hold.
    """
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecipeError(f"{where} must be a finite number, but got {reprlib.repr(value)}", where=where)
    return number
