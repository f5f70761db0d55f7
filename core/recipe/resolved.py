"""The resolved form: the complete, default-free description of one candidate, over which the digest is taken."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from core.adapters import AdaptedModel, adapted_digest
from core.catalog import catalog
from core.draws import Draw
from core.model import Model
from core.noun import Noun, digest_of
from core.params import Scalar
from core.recipe.short import Dtype
from core.selectors import touches


class ResolvedSource(Noun):
    """An ingredient by content: a registered model, an adapter on one, or the result of another resolved recipe.

    Attributes:
        weights: the model's weights digest.
        config: digest of what its config says beyond names: equal weights compute something else under another one.
        adapter: the weights digest of the adapter on it.
        recipe: the other recipe.
    """

    kind: Literal["model", "adapter", "recipe"]
    weights: str | None = None
    config: str | None = None
    # Left out where there is none: recipes had their digests before there were adapters.
    adapter: str | None = Field(default=None, exclude_if=lambda value: value is None)
    recipe: ResolvedRecipe | None = None

    @property
    def source_digest(self) -> str:
        """The weights digest of a model (adapted or not), the recipe digest of a recipe."""
        if self.recipe is not None:
            return self.recipe.digest()
        return str(self.weights) if self.adapter is None else adapted_digest(str(self.weights), self.adapter)


class AlignedVocabulary(Noun):
    """How the rows of sources with different vocabularies are brought into one order, by content.

    Attributes:
        mode: `align` or `union`, see `core.recipe.short.Tokenizer`.
        version: of the rule, `core.alignment.align`.
        tokenizers: the vocabulary's digest of each of the recipe's sources.
        pad_to_multiple_of: what the number of rows is a multiple of.
    """

    mode: Literal["align", "union"]
    version: int = 1
    tokenizers: tuple[str, ...]
    pad_to_multiple_of: int | None = None


class Part(Noun):
    """A factor on some of a tensor's rows or columns: those whose index, modulo `period`, lies below `length`.

    Attributes:
        axis: the dimension that is counted: 0, or -1 for the last.
        scale: the factor.
    """

    axis: Literal[0, -1]
    period: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=1)]
    scale: float


class Group(Noun):
    """The tensors of an entry that get equal values.

    Attributes:
        tensors: suffixes within a layer (full names in embed and head), sorted.
        params: values that hold for the whole tensor, by parameter name.
        source_params: values per source, in the order of the entry's sources.
        scale: factor on the result.
        part: a further factor on a part of it.
        shift: added to all of it in the end.
    """

    tensors: Annotated[tuple[str, ...], Field(min_length=1)]
    params: dict[str, Scalar] = Field(default_factory=dict)
    source_params: tuple[dict[str, Scalar], ...] = ()
    scale: float = 1.0
    # Left out where they change nothing: recipes had their digests before there were any.
    part: Part | None = Field(default=None, exclude_if=lambda part: part is None)
    shift: float = Field(default=0.0, exclude_if=lambda shift: shift == 0.0)


class Entry(Noun):
    """One output layer (or the embedding, or the head).

    Attributes:
        sources: (index into the recipe's sources, layer index there) pairs; the layer index is -1 in embed and head.
        base: position in `sources` of the base the deltas are taken against; None where the method has none.
        method, version: the kernel.
        groups: values for every tensor, ordered by first suffix.
    """

    sources: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
    base: int | None = None
    method: str
    version: int
    groups: tuple[Group, ...]

    @property
    def trims_the_model(self) -> bool:
        """Whether some tensor of it depends on all the others that a source changes."""
        return any(group.params.get("trim_scope") == "model" for group in self.groups)


class ResolvedRecipe(Noun):
    """Everything that decides a candidate's bytes and what they compute, and nothing else (no names, no paths).

    Attributes:
        layers: the stack; empty where it is not known which tensors are layers (then all of them stand in `embed`).
        tokenizer: the source that gives its tokenizer; `tokenizer_digest` is over that tokenizer's files (those of all
            sources where it is a union).
        vocabulary: how its rows come about; None where all sources have one vocabulary, which is the donor's.
        seed: of the masks; 0 where no method draws any (one that may counts, even where its densities are 1).
        statistics: digest of the activation statistics, where a method looks at them.
        generation: the sample around all of this, where it changes anything.
    """

    format: Literal[1] = 1
    model_type: str
    sources: tuple[ResolvedSource, ...]
    layers: tuple[Entry, ...]
    embed: Entry
    head: Entry
    tokenizer: int
    tokenizer_digest: str | None = None
    # Left out where there is none: recipes had their digests before vocabularies were aligned.
    vocabulary: AlignedVocabulary | None = Field(default=None, exclude_if=lambda value: value is None)
    compute_dtype: Literal["float32"] = "float32"
    save_dtype: Dtype
    seed: int
    # Left out where there are none: recipes had their digests before there were statistics.
    statistics: str | None = Field(default=None, exclude_if=lambda value: value is None)
    # Left out where there is none: recipes had their digests before there were draws.
    generation: Draw | None = Field(default=None, exclude_if=lambda value: value is None)

    def entry_key(self, entry: Entry) -> str:
        """The key of a layer's content: equal keys mean equal bytes, wherever in a stack the layer stands."""
        info = catalog().method(entry.method)
        return digest_of(
            {
                **entry.model_dump(mode="json"),
                "sources": [[self.sources[source].source_digest, layer] for source, layer in entry.sources],
                "save_dtype": self.save_dtype,
                "seed": self.seed if info.random else 0,
                **({"statistics": self.statistics} if self.statistics is not None and info.measured else {}),
                **({"whole": self.whole_digest} if entry.trims_the_model else {}),
            }
        )

    @cached_property
    def whole_digest(self) -> str:
        """As `digest`, taken once."""
        return self.digest()

    def layer_keys(self) -> tuple[str, ...]:
        """One key per output layer."""
        keys = tuple(self.entry_key(entry) for entry in self.layers)
        draw, depth = self.generation, len(self.layers)
        if draw is None:
            return keys
        # A sampled layer depends on its place, too: that keys the noise.
        return tuple(
            digest_of([key, draw.model_dump(mode="json"), layer, depth])
            if touches(draw.selectors, layer, depth) and draw.amount(layer, depth)
            else key
            for layer, key in enumerate(keys)
        )

    def embed_key(self) -> str:
        """The key of what stands before the layers."""
        key = self.entry_key(self.embed)
        # The order of its rows depends on the vocabularies of all sources.
        return key if self.vocabulary is None else digest_of([key, self.aligned_digest(self.tokenizer)])

    def aligned_digest(self, position: int) -> str:
        """Names one source's rows in the order of this recipe's vocabulary: they depend on all sources."""
        assert self.vocabulary is not None
        return digest_of(
            {
                "aligned": self.vocabulary.model_dump(mode="json"),
                "sources": [source.source_digest for source in self.sources],
                "donor": self.tokenizer,
                "position": position,
            }
        )

    def tokenizer_donor(self) -> str:
        """Weights digest of the model that gives the tokenizer, through nested recipes."""
        donor = self.sources[self.tokenizer]
        return donor.recipe.tokenizer_donor() if donor.recipe is not None else donor.source_digest

    def model_digests(self) -> tuple[str, ...]:
        """Weights digests of every model in it, nested recipes included, in order of first use."""
        found: dict[str, None] = {}
        for source in self.sources:
            digests = (source.source_digest,) if source.recipe is None else source.recipe.model_digests()
            found.update(dict.fromkeys(digests))
        return tuple(found)


def resolved_source(model: Model) -> ResolvedSource:
    """A model as an ingredient."""
    config = model.header.config_digest
    if isinstance(model, AdaptedModel):
        base, adapter = model.base.weights_digest, model.adapter.weights_digest
        return ResolvedSource(kind="adapter", weights=base, config=config, adapter=adapter)
    return ResolvedSource(kind="model", weights=model.weights_digest, config=config)


ResolvedSource.model_rebuild()
