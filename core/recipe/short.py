"""The short form of a recipe: what people write and what a search fills in.

    {"sources": [{"name": "base", "model": "base"}, {"name": "a", "model": "a"}, {"name": "b", "model": "b"}],
     "merge": {"method": "ties", "base": "base", "params": {"weight": {"a": 1.0, "b": [0.2, 0.8]}, "density": 0.5}},
     "save_dtype": "bfloat16", "seed": 7}

Exactly one of `merge` (every layer with its namesake), `layout` (a preset over one source), `slices` and `path` (a
way through the layers of several sources) is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from core.draws import Draw
from core.errors import RecipeError
from core.noun import Noun
from core.recipe.limits import (
    MAX_LAYERS,
    MAX_NESTING,
    MAX_PADDING,
    MAX_PARAMS,
    MAX_RECIPES,
    MAX_SLICES,
    MAX_SOURCES,
)
from core.recipe.path import Factor, Path
from core.recipe.values import GROUPS, check_form

Dtype = Literal["float32", "float16", "bfloat16"]


def _not_reserved(name: str) -> str:
    if name == GROUPS:
        # {"groups": [...]} would mean values per layer group and the value of that source alike.
        raise ValueError(f"the name {name!r} is reserved for values per layer group: choose another")
    return name


def _bounded_params(params: dict[str, Any]) -> dict[str, Any]:
    for name, value in params.items():
        try:
            check_form(value, name)
        except RecipeError as error:
            raise ValueError(error.message) from error
    return params


Name = Annotated[
    str,
    Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
    AfterValidator(_not_reserved),
]
Params = Annotated[dict[str, Any], Field(max_length=MAX_PARAMS), AfterValidator(_bounded_params)]


class Source(Noun):
    """A named ingredient: a registered model (by name), an adapter on one, or another recipe's result.

    Attributes:
        name: what the rest of the recipe calls it.
        model: the registered model.
        adapter: a registered LoRA adapter that is applied to `model`.
        recipe: the recipe whose result is the ingredient.
    """

    name: Name
    model: str | None = None
    adapter: str | None = None
    recipe: Recipe | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Source:
        if (self.model is None) == (self.recipe is None):
            raise ValueError(f"source {self.name!r} must have either `model` or `recipe`: give one of them")
        if self.adapter is not None and self.model is None:
            raise ValueError(f"source {self.name!r} has an `adapter` but no `model`: name the model it was trained on")
        return self


class Tokenizer(Noun):
    """Whose tokens the candidate has; `tokenizer: "<source>"` is short for mode `donor`.

    Attributes:
        mode: `donor` takes the source's tokenizer, and every source must have its vocabulary. `align` takes the
            donor's tokenizer as well, but gives every source's embedding and head rows the donor's order, token by
            token. `union` adds, behind the donor's tokens, those that only other sources have.
        source: the donor; None is the recipe's first source.
        pad_to_multiple_of: rows are added until their number is a multiple of this (`align` and `union`).
    """

    mode: Literal["donor", "align", "union"]
    source: str | None = None
    pad_to_multiple_of: Annotated[int, Field(ge=1, le=MAX_PADDING)] | None = None

    @model_validator(mode="after")
    def _only_where_rows_move(self) -> Tokenizer:
        if self.mode == "donor" and self.pad_to_multiple_of is not None:
            raise ValueError("`pad_to_multiple_of` changes the vocabulary's rows: use mode `align` instead of `donor`")
        return self


class Merge(Noun):
    """One method over all sources, layer by layer.

    `params` maps a parameter to a value in any form of `core.recipe.values`. `sources` defaults to all sources
    of the recipe (without the base where the method takes deltas).
    """

    method: str
    base: str | None = None
    sources: Annotated[tuple[str, ...], Field(max_length=MAX_SOURCES)] | None = None
    params: Params = Field(default_factory=dict)


_LayerIndex = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]
_Layers = Annotated[tuple[_LayerIndex, ...], Field(max_length=MAX_LAYERS)]


class Layout(Noun):
    """A layout preset over the layers of one source; its parameters are whole numbers or lists of layers."""

    preset: str
    source: str
    params: Annotated[dict[str, int | _Layers], Field(max_length=MAX_PARAMS)] = Field(default_factory=dict)


class Repeated(Noun):
    """What the second and every later occurrence of a layer in a stack gets.

    Attributes:
        attention: factor on its attention logits; 0.5 is sqrt(1/2) on queries and on keys.
        output: factor on what it adds to the residual stream; 0.5 to 0.7 is said to help untrained stacks.
    """

    attention: Factor = 0.5
    output: Factor = 1.0


class SliceSource(Noun):
    """Which layers of which source enter a slice: a half-open `range` or explicit `layers`."""

    source: str
    range: tuple[int, int] | None = None
    layers: _Layers | None = None

    @field_validator("range")
    @classmethod
    def _bounded(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] < value[1] <= MAX_LAYERS:
            raise ValueError(f"a range must have 0 <= start < stop <= {MAX_LAYERS}, but got {list(value)!r}")
        return value

    @model_validator(mode="after")
    def _one_of(self) -> SliceSource:
        if (self.range is None) == (self.layers is None):
            raise ValueError(f"slice of {self.source!r} must have either `range` or `layers`: give one of them")
        return self

    def indices(self) -> Sequence[int]:
        """The layer indices in order."""
        return range(*self.range) if self.range is not None else self.layers or ()


class Slice(Noun):
    """Layers taken side by side from each source (equally many) and combined by one method."""

    sources: Annotated[tuple[SliceSource, ...], Field(min_length=1, max_length=MAX_SOURCES)]
    method: str = "passthrough"
    base: str | None = None
    params: Params = Field(default_factory=dict)


class Recipe(Noun):
    """The short form. See `core.recipe.resolve.resolve` for what every tensor gets.

    Attributes:
        statistics: digest of the activation statistics that some methods look at (`merging.activations`).
        generation: a sample around what all the rest describes, see `core.draws`.
    """

    sources: Annotated[tuple[Source, ...], Field(min_length=1, max_length=MAX_SOURCES)]
    merge: Merge | None = None
    layout: Layout | None = None
    slices: Annotated[tuple[Slice, ...], Field(max_length=MAX_SLICES)] | None = None
    path: Path | None = Field(default=None, exclude_if=lambda path: path is None)
    repeated: Repeated | None = Field(default=None, exclude_if=lambda repeated: repeated is None)
    tokenizer: str | Tokenizer | None = None
    compute_dtype: Literal["float32"] = "float32"
    save_dtype: Dtype = "bfloat16"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    statistics: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, exclude_if=lambda statistics: statistics is None
    )
    generation: Draw | None = Field(default=None, exclude_if=lambda draw: draw is None)

    @field_validator("tokenizer")
    @classmethod
    def _shortest(cls, value: str | Tokenizer | None) -> str | Tokenizer | None:
        """Two ways to say one thing are one thing."""
        return value.source if isinstance(value, Tokenizer) and value.mode == "donor" else value

    @property
    def donor(self) -> str | None:
        """The source that gives the tokenizer, where the recipe names one."""
        return self.tokenizer.source if isinstance(self.tokenizer, Tokenizer) else self.tokenizer

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that combine its sources, slice by slice; those of recipes in it are not among them."""
        if self.merge is not None:
            return (self.merge.method,)
        return tuple(part.method for part in self.slices) if self.slices is not None else ("passthrough",)

    @model_validator(mode="after")
    def _shape(self) -> Recipe:
        given = [name for name in ("merge", "layout", "slices", "path") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a recipe has exactly one of merge, layout, slices and path, but got {given!r}")
        if self.repeated is not None and self.merge is not None:
            raise ValueError("`repeated` scales layers that stand there again, which no merge has: leave it out")
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"source names must be unique, but got {names!r}: rename one")
        if self.slices == ():
            raise ValueError("slices must not be empty: give at least one")
        return self

    @model_validator(mode="after")
    def _size(self) -> Recipe:
        if (levels := self._levels()) > MAX_NESTING:
            raise ValueError(f"recipes may be nested at most {MAX_NESTING} deep, but this one has {levels} levels")
        recipes = tuple(self._recipes())
        if len(recipes) > MAX_RECIPES:
            raise ValueError(f"a recipe may hold at most {MAX_RECIPES} recipes, but this one has {len(recipes)}")
        layers = sum(len(part.sources[0].indices()) for recipe in recipes for part in recipe.slices or ())
        layers += sum(sum(recipe.path.include) for recipe in recipes if recipe.path is not None)
        if layers > MAX_LAYERS:
            raise ValueError(f"a recipe may have at most {MAX_LAYERS} layers, but its slices have {layers}")
        return self

    def _levels(self) -> int:
        return 1 + max((source.recipe._levels() for source in self.sources if source.recipe is not None), default=0)

    def _recipes(self) -> Iterator[Recipe]:
        yield self
        for source in self.sources:
            if source.recipe is not None:
                yield from source.recipe._recipes()


def identity(name: str, *, save_dtype: Dtype) -> Recipe:
    """The recipe that is one model, unchanged but for the rounding to `save_dtype`."""
    return Recipe(
        sources=(Source(name=name, model=name),),
        merge=Merge(method="passthrough", sources=(name,)),
        save_dtype=save_dtype,
    )


Source.model_rebuild()
