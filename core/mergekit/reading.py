"""From a mergekit 0.1.x configuration to the recipe that means the same merge.

Every default of mergekit that is not ours is written out in the recipe. What cannot be said is refused; what mergekit
itself takes and does nothing with, and where our rules differ, is told in notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from core.catalog import catalog
from core.errors import MergekitError
from core.mergekit.binding import bound
from core.mergekit.inputs import Part, read_inputs
from core.mergekit.methods import mergekit_method
from core.mergekit.naming import source_names
from core.mergekit.reference import Reference
from core.mergekit.schema import Document
from core.mergekit.stages import Config, read_stages, references, stage_of
from core.recipe.short import Dtype, Merge, Recipe, Slice, SliceSource, Source, Tokenizer

_DTYPES: dict[str, Dtype] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}


@dataclass(frozen=True)
class Conversion:
    """A recipe, and what to know about it: where our rules differ, and what had no effect in mergekit either."""

    recipe: Recipe
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Knowledge:
    """What is known of the models that a configuration names.

    Attributes:
        names: what a model or adapter is called here, by what mergekit calls it; by default the same.
        dtypes: the dtype that a model is stored in, by what mergekit calls it.
        seed: of the masks.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


def from_mergekit(config: Config, knowledge: Knowledge | None = None) -> Conversion:
    """The recipe of a parsed configuration, multi-stage ones included.

    Args:
        config: one document, a sequence of them, or {"merges": [...]}.
        knowledge: of the models.

    Raises:
        MergekitError: something in it has no meaning here; names key, value and way out.
        UnknownMethodError: a method of mergekit's that is not in the catalogue.
    """
    notes: dict[str, None] = {}
    built: dict[str | None, Recipe] = {}
    stages = read_stages(config)
    for document in stages:
        reader = _Reader(document, built, knowledge or Knowledge(), notes)
        try:
            built[document.name] = reader.recipe()
        except ValidationError as error:
            raise MergekitError(f"no recipe can say this: {_first(error)}") from None
    return Conversion(built[stages[-1].name], tuple(notes))


def model_names(config: Config) -> tuple[str, ...]:
    """What the configuration calls its models and adapters (not its stages), in order of appearance.

    Raises:
        MergekitError: malformed.
    """
    stages = read_stages(config)
    names = [document.name for document in stages]
    paths = [
        path
        for document in stages
        for reference in references(document)
        for path in (reference.model, reference.adapter)
        if path is not None and stage_of(path, names) is None
    ]
    return tuple(dict.fromkeys(path.text for path in paths))


class _Reader:
    """One document on its way to a recipe."""

    def __init__(
        self, document: Document, stages: Mapping[str | None, Recipe], knowledge: Knowledge, notes: dict[str, None]
    ) -> None:
        self.document = document
        self.stages = stages
        self.knowledge = knowledge
        self.notes = notes
        self.method = mergekit_method(document.merge_method)
        self.info = catalog().method(document.merge_method)
        self.inputs = read_inputs(document, self.method, self.note)
        self.names = source_names([*self.inputs.references(), *self._donors()])

    def note(self, text: str) -> None:
        """Remember something to tell, once."""
        self.notes[text] = None

    def recipe(self) -> Recipe:
        """The recipe of this document."""
        self._refuse_what_has_no_place()
        parts, whole = self.inputs.parts, self.inputs.whole
        return Recipe(
            sources=tuple(self._source(reference, name) for (reference, _), name in self.names.items()),
            merge=self._merge(parts[0]) if whole else None,
            slices=None if whole else tuple(self._slice(part) for part in parts),
            tokenizer=self._tokenizer(),
            save_dtype=self._save_dtype(),
            seed=self.knowledge.seed if self._draws() else 0,
        )

    def _refuse_what_has_no_place(self) -> None:
        document = self.document
        if document.chat_template is not None:
            raise MergekitError(
                f"a recipe has no chat template, but chat_template is {document.chat_template!r:.100}: remove it; the "
                "tokenizer's own comes with it, and another can be written into the checkpoint afterwards",
                where="chat_template",
            )
        if document.tokenizer is not None and document.tokenizer.tokens:
            raise MergekitError(
                f"embeddings of single tokens cannot be chosen, but tokenizer.tokens has "
                f"{sorted(document.tokenizer.tokens)[:5]!r}: remove it",
                where="tokenizer.tokens",
            )

    def _draws(self) -> bool:
        if self.info.random:
            self.note(
                f"{self.info.name} draws from Huarizo's own generator, keyed by seed {self.knowledge.seed}, model and "
                "tensor: the same odds as mergekit's, other draws."
            )
        return self.info.random

    # Sources ----------------------------------------------------------------------------------------------------

    def _source(self, reference: Reference, name: str) -> Source:
        stage = stage_of(reference.model, tuple(self.stages))
        if stage is None:
            adapter = reference.adapter
            if adapter is not None and stage_of(adapter, tuple(self.stages)) is not None:
                raise MergekitError(f"an adapter is no stage, but got {reference.text!r}: name an adapter's folder")
            called = self.knowledge.names
            return Source(
                name=name,
                model=called.get(reference.model.text, reference.model.text),
                adapter=None if adapter is None else called.get(adapter.text, adapter.text),
            )
        if reference.adapter is not None:
            raise MergekitError(
                f"an adapter goes on a model, not on a stage, but got {reference.text!r}: put it on one of the "
                "stage's models",
                where=reference.text,
            )
        return Source(name=name, recipe=self.stages[stage])

    def _donors(self) -> list[tuple[Reference, int]]:
        """Models that only give a tokenizer: sources, too."""
        return [(reference, 0) for reference in (self._tokenizer_source(), self.document.base_model) if reference]

    def _tokenizer_source(self) -> Reference | None:
        part = self.document.tokenizer
        source = part.source if part is not None else self.document.tokenizer_source
        return source if isinstance(source, Reference) else None

    def _tokenizer(self) -> str | Tokenizer:
        part = self.document.tokenizer
        source = part.source if part is not None else self.document.tokenizer_source
        donor = self._donor(source)
        if source is None:
            return donor
        padding = part.pad_to_multiple_of if part is not None else None
        self.note(
            "a model that lacks one of the tokenizer's tokens gets the mean of the other models' rows for it here; "
            "mergekit gives it the base_model's, if that has one."
        )
        return Tokenizer(mode="union" if source == "union" else "align", source=donor, pad_to_multiple_of=padding)

    def _donor(self, source: Any) -> str:
        if isinstance(source, Reference):
            return self.names[source, 0]
        if self.document.base_model is None and len(self.names) > 1:
            self.note(
                "without base_model mergekit takes tokenizer and config from whichever model comes first in a set; "
                "here it is the first that the configuration names."
            )
        return self.names[self.document.base_model, 0] if self.document.base_model else next(iter(self.names.values()))

    # Dtypes -----------------------------------------------------------------------------------------------------

    def _save_dtype(self) -> Dtype:
        loaded, saved = self.document.dtype, self.document.out_dtype
        for key, value in (("dtype", loaded), ("out_dtype", saved)):
            if value is not None and _plain(value) not in (*_DTYPES, "float64"):
                raise MergekitError(
                    f"{key} must be float32, float16 or bfloat16, but got {value!r}: take one of them", where=key
                )
        chosen = saved or loaded
        if chosen is None:
            return self._native()
        if loaded is not None and _plain(loaded) != "float32":
            self.note(
                f"mergekit would round every model to dtype {_plain(loaded)} and compute in it, as far as the method "
                "does; here arithmetic is float32 and rounded once, at the end."
            )
        if _plain(chosen) not in _DTYPES:
            raise MergekitError(
                f"weights are saved as float32, float16 or bfloat16, but got {chosen!r}: give an out_dtype among them",
                where="dtype" if saved is None else "out_dtype",
            )
        return _DTYPES[_plain(chosen)]

    def _native(self) -> Dtype:
        """What the models promote to, which is what mergekit saves where neither dtype is given."""
        found: set[str | None] = set()
        for reference in self.inputs.references():
            stage = stage_of(reference[0].model, tuple(self.stages))
            found.add(
                self.knowledge.dtypes.get(reference[0].model.text) if stage is None else self.stages[stage].save_dtype
            )
        if None in found:
            self.note(
                "neither dtype nor out_dtype is given and the models' own dtype is not known here: weights are saved "
                "as bfloat16."
            )
            return "bfloat16"
        return _DTYPES[str(found.pop())] if len(found) == 1 else "float32"

    # Parts ------------------------------------------------------------------------------------------------------

    def _part(self, part: Part) -> tuple[Part, tuple[str, ...], str | None, dict[str, Any]]:
        """The part with our names of its models, of its base, and its parameters."""
        if part.base is not None and not (self.info.needs_base or self.info.optional_base):
            # Where mergekit has a base and we an order, the base comes first.
            part = part.with_base_first()
        names = tuple(self.names[source.key] for source in part.sources)
        params = bound(self.method, self.info, part, names, self.note)
        takes_base = part.base is not None and (self.info.needs_base or self.info.optional_base)
        return part, names, names[part.base] if takes_base and part.base is not None else None, params

    def _merge(self, part: Part) -> Merge:
        _, names, base, params = self._part(part)
        sources = tuple(name for name in names if name != base)
        return Merge(method=self.info.name, base=base, sources=sources, params=params)

    def _slice(self, part: Part) -> Slice:
        part, names, base, params = self._part(part)
        sources = tuple(SliceSource(source=n, range=s.layers) for n, s in zip(names, part.sources, strict=True))
        return Slice(sources=sources, method=self.info.name, base=base, params=params)


def _plain(dtype: str) -> str:
    return dtype.removeprefix("torch.")


def _first(error: ValidationError) -> str:
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
