"""What a job says of its search space: the families of candidates it mixes, and what of them is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from core.draws import ARMS, Arm, Mode
from core.generators import MOST_SOURCES, PRESETS, Training, checked
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


#: What a family may be told to sample around: the best candidate that its own generator learned from.
BEST = "best"


class OwnGenerator(Noun):
    """A generator that a search trains itself, once, from what it has found by then.

    Attributes:
        train_after: candidates that must have ended with a score, whole or stopped; 0 trains before anything is
            proposed, on models alone.
        top: how many of them it learns from, those scored on most items first, the best of these first; with the
            models at most as many as a generator learns from.
        parents: whether it learns from all of the job's models, and not from the base alone.
        preset: of the settings, by name.
        training: settings that differ from the preset's, by name; `selectors` are the family's.
    """

    train_after: Annotated[int, Field(ge=0, le=100_000)]
    top: Annotated[int, Field(ge=1, lt=MOST_SOURCES)] = 8
    parents: bool = False
    preset: str = "default"
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if "selectors" in self.training:
            raise ValueError("a search samples what its generator is trained on: name `selectors` in the family alone")
        checked(self.preset, self.training)
        return self


class GenerationFamily(Noun):
    """Samples from a generator of weights, around one model or around a recipe.

    Attributes:
        generator: the generator's digest (or a name that the service turns into one), or how the search trains its own.
        selectors: which tensors are sampled; the generator must know them. One that the search trains is about just
            these; left out they are its preset's.
        arms: which to choose from. Without a rival arm nobody can tell what the generator is worth.
        mode: what changes are measured from.
        base: the model that is sampled around; the job's first one by default.
        around: a recipe that is sampled around instead; `best` is the best candidate that the search's own generator
            has learned from.
        radius: whether candidates lie at a searched radius `rho`; else `strength` and `blend` are searched.
        layer_groups: how many groups of layers get their own amount.
        subspace: K fixed samples whose coefficients are searched; 0 draws a sample per candidate.
        params: per parameter either an interval to search or a fixed value.
    """

    family: Literal["generation"] = "generation"
    generator: Annotated[str, Field(min_length=1, max_length=100)] | OwnGenerator
    selectors: Selectors = ("norms",)
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=len(ARMS)), AfterValidator(_each_once)] = (
        "diffusion",
        "matched-noise",
    )
    mode: Mode = "anchored"
    base: str | None = None
    around: Recipe | Literal["best"] | None = None
    radius: bool = True
    layer_groups: Annotated[int, Field(ge=1, le=64)] = 1
    subspace: Annotated[int, Field(ge=0, le=16)] = 4
    params: Annotated[dict[str, Interval | Scalar], Field(max_length=MAX_PARAMS)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _selectors_of_the_preset(cls, given: Any) -> Any:
        own = given.get("generator") if isinstance(given, dict) else None
        preset = own.get("preset", "default") if isinstance(own, dict) else None
        if preset in PRESETS and "selectors" not in given:
            return {**given, "selectors": PRESETS[str(preset)].get("selectors", ("norms",))}
        return given

    @model_validator(mode="after")
    def _one_of(self) -> GenerationFamily:
        if self.base is not None and self.around is not None and self.around != BEST:
            raise ValueError("samples lie around a `base` or `around` a recipe: leave one out")
        own = self.own
        if self.around == BEST and (own is None or own.train_after == 0):
            raise ValueError(
                f"around {BEST!r} is the best candidate that a search's own generator learned from: set "
                "`generator.train_after` above 0, or name a recipe"
            )
        return self

    @property
    def own(self) -> OwnGenerator | None:
        """How the search trains a generator of its own; None where it names one."""
        return self.generator if isinstance(self.generator, OwnGenerator) else None

    @property
    def settings(self) -> Training:
        """Of its own generator's training.

        Raises:
            ValueError: it names a generator.
        """
        if self.own is None:
            raise ValueError(f"the generator {self.generator!r} is not trained here: read its settings in its artifact")
        return checked(self.own.preset, {**self.own.training, "selectors": self.selectors})

    def opened(self, generator: str, around: Recipe | None = None) -> GenerationFamily:
        """The family once its own generator is there.

        Args:
            generator: its digest.
            around: the best candidate that it learned from, which `around` may ask for.
        """
        wanted = around if self.around == BEST else self.around
        base = None if wanted is not None else self.base
        return self.evolve(generator=generator, around=wanted, base=base)


Family = Annotated[MergeFamily | LayoutFamily | GenerationFamily, Field(discriminator="family")]


class SpaceSpec(Noun):
    """The families a study mixes."""

    families: Annotated[tuple[Family, ...], Field(min_length=1, max_length=3)]

    @model_validator(mode="before")
    @classmethod
    def _late_ones_last(cls, given: Any) -> Any:
        """What opens under way stands last, so that all that was there before keeps its place."""
        families = given.get("families") if isinstance(given, dict) else None
        if not isinstance(families, list | tuple):
            return given
        return {**given, "families": sorted(families, key=_opens_late)}

    @model_validator(mode="after")
    def _others_come_first(self) -> Self:
        own = next((f.own for f in self.families if isinstance(f, GenerationFamily) and f.own is not None), None)
        if own is not None and own.train_after > 0 and len(self.families) == 1:
            raise ValueError(
                f"a generator that is trained after {own.train_after} candidates needs another family to find them: "
                "add one, or set `train_after` to 0"
            )
        return self


def _opens_late(family: Any) -> bool:
    generator = family.get("generator") if isinstance(family, dict) else getattr(family, "generator", None)
    return isinstance(generator, dict | OwnGenerator)
