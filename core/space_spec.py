"""What a job says of its search space: the families of candidates it mixes, and what of them is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from core.draws import ARMS, Arm, Mode
from core.noun import Noun
from core.params import FloatParam, Scalar
from core.recipe.limits import MAX_PARAMS, MAX_SOURCES
from core.recipe.short import Recipe, Tokenizer
from core.selectors import Selectors


def _each_once(names: tuple[Any, ...]) -> tuple[Any, ...]:
    """The holes of a space are a product of these lists: a name repeated would multiply them for nothing."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each may be named once, but {twice[0]!r} is there again: leave it out")
    return names


_Names = Annotated[tuple[str, ...], Field(max_length=MAX_SOURCES), AfterValidator(_each_once)]
#: What holes call the tensors that no block finds.
REST = "rest"


def _not_rest(name: str) -> str:
    if name == REST:
        raise ValueError(f"{REST!r} stands for the tensors that no block finds: name others")
    return name


_Block = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=100), AfterValidator(_not_rest)]
_Blocks = Annotated[
    tuple[_Block, ...], Field(max_length=16, exclude_if=lambda blocks: not blocks), AfterValidator(_each_once)
]


class Interval(Noun):
    """Bounds that replace a parameter's default search interval."""

    low: float
    high: float
    log: bool = False


class MergeFamily(Noun):
    """Merges of the job's models.

    Attributes:
        methods: which methods to choose from.
        base: the base of methods that take deltas, or may take them.
        sources: the models merged; by default all but the base.
        layer_groups: how many groups of layers get their own values.
        blocks: filters by tensor name, as in a recipe: the tensors that each finds get their own values, and so do all
            the rest. One that finds nothing adds parameters without effect.
        params: per parameter either an interval to search or a fixed value.
        tokenizer: how vocabularies are aligned, where the models have several.
    """

    family: Literal["merge"] = "merge"
    methods: Annotated[_Names, Field(min_length=1)]
    base: str | None = None
    sources: _Names | None = None
    layer_groups: Annotated[int, Field(ge=1, le=64)] = 1
    blocks: _Blocks = ()
    params: Annotated[dict[str, Interval | Scalar], Field(max_length=MAX_PARAMS)] = Field(default_factory=dict)
    tokenizer: Tokenizer | None = Field(default=None, exclude_if=lambda tokenizer: tokenizer is None)


#: What may be searched of the factors on repeated layers; see `core.recipe.short.Repeated`.
REPEATED = (
    FloatParam(name="attention", default=0.5, low=0.001, high=16.0, search_low=0.25, search_high=1.0),
    FloatParam(name="output", default=1.0, low=0.001, high=16.0, search_low=0.3, search_high=1.0),
)


class LayoutFamily(Noun):
    """Layout presets over the layers of one of the sources.

    Attributes:
        presets: which to choose from.
        sources: the models whose layers are stacked.
        repeated: factors on layers that stand there again, each a fixed value or an interval to search.
    """

    family: Literal["layout"] = "layout"
    presets: Annotated[_Names, Field(min_length=1)]
    sources: Annotated[_Names, Field(min_length=1)]
    repeated: dict[Literal["attention", "output"], Interval | float] | None = Field(
        default=None, exclude_if=lambda repeated: repeated is None
    )


class GenerationFamily(Noun):
    """Samples from a generator of weights, around one model or around a recipe.

    Attributes:
        generator: the generator's digest (or a name that the service turns into one).
        selectors: which tensors are sampled; the generator must know them.
        arms: which to choose from. Without a rival arm nobody can tell what the generator is worth.
        mode: what changes are measured from.
        base: the model that is sampled around; the job's first one by default.
        around: a recipe that is sampled around instead.
        radius: whether candidates lie at a searched radius `rho`; else `strength` and `blend` are searched.
        layer_groups: how many groups of layers get their own amount.
        subspace: K fixed samples whose coefficients are searched; 0 draws a sample per candidate.
        params: per parameter either an interval to search or a fixed value.
    """

    family: Literal["generation"] = "generation"
    generator: Annotated[str, Field(min_length=1, max_length=100)]
    selectors: Selectors = ("norms",)
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=len(ARMS)), AfterValidator(_each_once)] = (
        "diffusion",
        "matched-noise",
    )
    mode: Mode = "anchored"
    base: str | None = None
    around: Recipe | None = None
    radius: bool = True
    layer_groups: Annotated[int, Field(ge=1, le=64)] = 1
    subspace: Annotated[int, Field(ge=0, le=16)] = 4
    params: Annotated[dict[str, Interval | Scalar], Field(max_length=MAX_PARAMS)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of(self) -> GenerationFamily:
        if self.base is not None and self.around is not None:
            raise ValueError("samples lie around a `base` or `around` a recipe: leave one out")
        return self


Family = Annotated[MergeFamily | LayoutFamily | GenerationFamily, Field(discriminator="family")]


class SpaceSpec(Noun):
    """The families a study mixes."""

    families: Annotated[tuple[Family, ...], Field(min_length=1, max_length=3)]
