"""The shape of a mergekit 0.1.x configuration: its keys and what stands under them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from core.errors import MergekitError
from core.mergekit.reference import Reference, parse_reference

Model = Annotated[Reference, BeforeValidator(parse_reference)]
Parameters = dict[str, Any]


#: Keys of mergekit's other program, which makes a mixture of models.
EXPERTS = ("experts", "gate_mode", "experts_per_token")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputModel(_Part):
    """One of `models`."""

    model: Model
    parameters: Parameters = Field(default_factory=dict)


class InputSlice(_Part):
    """One of a slice's `sources`: layers `layer_range[0]` up to, without, `layer_range[1]`."""

    model: Model
    layer_range: tuple[int, int]
    parameters: Parameters = Field(default_factory=dict)


class OutputSlice(_Part):
    """One of `slices`. mergekit reads `residual_weight` and does nothing with it; `merge_method` it does not read."""

    sources: Annotated[tuple[InputSlice, ...], Field(min_length=1)]
    base_model: Model | None = None
    residual_weight: float | None = None
    merge_method: str | None = None
    parameters: Parameters = Field(default_factory=dict)


class OutputModule(_Part):
    """One of `modules`."""

    slices: tuple[OutputSlice, ...] | None = None
    models: tuple[InputModel, ...] | None = None
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of(self) -> OutputModule:
        if bool(self.slices) == bool(self.models):
            raise ValueError("a module has either `models` or `slices`: give one of them")
        return self


def _source(value: Any) -> Any:
    return value if value in ("union", "base") else parse_reference(value)


TokenizerSource = Annotated[Literal["union", "base"] | Reference, BeforeValidator(_source)]


class TokenizerPart(_Part):
    """`tokenizer`."""

    source: TokenizerSource = "union"
    tokens: dict[str, Any] | None = None
    pad_to_multiple_of: int | None = None


class Document(_Part):
    """One configuration; `name` is what later stages call its result."""

    merge_method: str
    modules: dict[str, OutputModule] | None = None
    slices: tuple[OutputSlice, ...] | None = None
    models: tuple[InputModel, ...] | None = None
    base_model: Model | None = None
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: TokenizerSource | None = None
    tokenizer: TokenizerPart | None = None
    chat_template: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    name: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Document:
        given = [form for form in ("modules", "slices", "models") if getattr(self, form)]
        if len(given) != 1:
            raise ValueError(f"a configuration has exactly one of models, slices and modules, but got {given!r}")
        if self.tokenizer is not None and self.tokenizer_source is not None:
            raise ValueError("a configuration has `tokenizer` or `tokenizer_source`, not both: remove one")
        return self


_LEVELS = (Document, OutputModule, OutputSlice, InputSlice, InputModel, TokenizerPart)


def read_document(value: Any, place: str = "") -> Document:
    """Check one parsed configuration against the schema.

    Args:
        value: what the YAML holds; keys with no value count as absent.
        place: what to call it in messages, where there are several.

    Raises:
        MergekitError: a key that mergekit does not have, or a value of the wrong kind; names it.
    """
    if not isinstance(value, Mapping):
        raise MergekitError(f"{place or 'a configuration'} must be a mapping, but got {value!r}")
    if not value.keys().isdisjoint(EXPERTS):
        raise MergekitError(
            f"mixtures of experts are not built here, but {place or 'the configuration'} has "
            f"{next(key for key in EXPERTS if key in value)!r}, which is mergekit-moe's: build it with that",
            where=next(key for key in EXPERTS if key in value),
        )
    try:
        return Document.model_validate(_given(dict(value)))
    except ValidationError as error:
        raise _told(error, place) from None


def _given(value: Any) -> Any:
    """Without keys that have no value: YAML writes an absent one that way, too."""
    if isinstance(value, Mapping):
        return {key: _given(inner) for key, inner in value.items() if inner is not None}
    return [_given(inner) for inner in value] if isinstance(value, list | tuple) else value


def _told(error: ValidationError, place: str) -> MergekitError:
    found = error.errors()[0]
    where = ".".join(str(part) for part in (place, *found["loc"]) if part != "")
    if found["type"] == "extra_forbidden":
        key = str(found["loc"][-1])
        near = difflib.get_close_matches(key, {name for level in _LEVELS for name in level.model_fields}, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "remove it"
        return MergekitError(f"mergekit has no key {where!r} (it holds {found['input']!r:.100}): {hint}", where=where)
    message = found["msg"].removeprefix("Value error, ")
    shown = "" if found["type"] in ("value_error", "missing") else f", but got {found['input']!r:.100}"
    return MergekitError(f"{where or 'the configuration'}: {message}{shown}", where=where or None)
