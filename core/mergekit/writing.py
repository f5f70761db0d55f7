"""From a recipe to the mergekit 0.1.x configuration that means the same merge, or the list of what it cannot say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.catalog import MethodInfo, catalog
from core.errors import MergekitError
from core.mergekit.cutting import Cut, cuts_of
from core.mergekit.methods import Method, mergekit_method
from core.mergekit.naming import distinct
from core.mergekit.reference import ModelPath, Reference, path_of, write_reference
from core.mergekit.stages import MERGES
from core.mergekit.unbinding import Settings, unbound
from core.noun import canonical_json
from core.recipe.forms import Form, form_of
from core.recipe.short import Merge, Recipe, Slice, SliceSource, Source, Tokenizer
from core.recipe.values import has_groups

#: What of a recipe has a place in a configuration; the seed is told in a note.
_SAID = ("sources", "merge", "layout", "slices", "path", "tokenizer", "compute_dtype", "save_dtype", "seed")


@dataclass(frozen=True)
class MergekitForm:
    """A configuration, in as many documents as it has stages (the result last), and what to know about it."""

    documents: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @property
    def config(self) -> dict[str, Any]:
        """One mapping, as `from_mergekit` takes it."""
        return self.documents[0] if len(self.documents) == 1 else {MERGES: list(self.documents)}


def to_mergekit(recipe: Recipe, depths: Mapping[str, int] | None = None) -> MergekitForm:
    """The configuration under which mergekit makes the same merge.

    Args:
        recipe: the short form.
        depths: layers of each model, by what the recipe's sources call it; layouts and layer groups need them.

    Raises:
        MergekitError: the recipe says what mergekit cannot; names everything found.
        UnknownMethodError, UnknownLayoutError, LayoutError: the recipe is wrong.
    """
    writer = _Writer(recipe, depths or {})
    writer.write(recipe, None)
    if writer.problems:
        problems = list(dict.fromkeys(writer.problems))
        raise MergekitError("mergekit cannot say this: " + "; ".join(problems), where=writer.where, reasons=problems)
    return MergekitForm(tuple(writer.documents), tuple(dict.fromkeys(writer.notes)))


class _Writer:
    """All stages of a recipe on their way to documents."""

    def __init__(self, recipe: Recipe, depths: Mapping[str, int]) -> None:
        self.depths = depths
        self.documents: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.where: str | None = None
        self._stages: dict[str, str] = {}
        self._taken = set(_paths(recipe))

    def write(self, recipe: Recipe, name: str | None) -> None:
        """Add the documents of a recipe, those of its stages first."""
        references = {source.name: self._reference(source) for source in recipe.sources}
        try:
            self.documents.append({**({"name": name} if name else {}), **_document(self, recipe, references)})
        except MergekitError as error:
            self.problem(error)

    def problem(self, error: MergekitError) -> None:
        """Remember what cannot be said."""
        self.problems.append(error.message)
        self.where = self.where or error.where

    def depth(self, recipe: Recipe, name: str) -> int:
        """Layers of a source.

        Raises:
            MergekitError: of a model that nobody has looked at.
        """
        source = next((each for each in recipe.sources if each.name == name), None)
        if source is None:
            raise MergekitError(f"the recipe has no source {name!r}: name one of its own", where=name)
        if source.recipe is not None:
            return _depth_of(self, source.recipe)
        if source.model not in self.depths:
            raise MergekitError(
                f"layouts and layer groups need the depth of {source.model!r}, but it is not known: register the model",
                where=name,
            )
        return self.depths[str(source.model)]

    def _reference(self, source: Source) -> Reference:
        if source.recipe is None:
            adapter = None if source.adapter is None else path_of(source.adapter)
            return Reference(path_of(str(source.model)), adapter)
        key = canonical_json(source.recipe.model_dump(mode="json"))
        if key not in self._stages:
            self._stages[key] = distinct(source.name, self._taken)
            self._taken.add(self._stages[key])
            self.write(source.recipe, self._stages[key])
        return Reference(ModelPath(self._stages[key]))


def _paths(recipe: Recipe) -> Iterator[str]:
    for source in recipe.sources:
        if source.recipe is not None:
            yield from _paths(source.recipe)
        for model in (source.model, source.adapter):
            if model is not None:
                yield path_of(model).path


def _depth_of(writer: _Writer, recipe: Recipe) -> int:
    if recipe.merge is not None:
        return writer.depth(recipe, recipe.sources[0].name)
    return sum(len(part.sources[0].indices()) for part in _formed(writer, recipe).slices)


def _formed(writer: _Writer, recipe: Recipe) -> Form:
    """Slices, layouts and paths as slices."""
    if recipe.slices is not None:
        return Form(recipe.slices, recipe.slices[0], recipe.slices[-1])
    path, layout = recipe.path, recipe.layout
    named = {layout.source} if layout is not None else set()
    if path is not None:
        named = {*path.sources, *(name for name in (path.embed, path.head) if name is not None)}
    return form_of(recipe, {name: writer.depth(recipe, name) for name in sorted(named)})


@dataclass(frozen=True)
class _Stage:
    """A recipe with everything that its document is made of.

    Attributes:
        references: what mergekit calls each source.
        bases: the base of each cut, in mergekit's sense.
        base: `base_model`, which for a method without one gives tokenizer and config.
        donor: the source that gives the tokenizer.
    """

    recipe: Recipe
    references: Mapping[str, Reference]
    cuts: tuple[Cut, ...]
    settings: tuple[Settings, ...]
    bases: tuple[str | None, ...]
    base: str | None
    donor: str

    def model(self, name: str) -> Any:
        """A source in mergekit's words."""
        return write_reference(self.references[name])


def _document(writer: _Writer, recipe: Recipe, references: Mapping[str, Reference]) -> dict[str, Any]:
    _check_fields(recipe, writer.problem)
    cuts = _cuts(writer, recipe)
    _check_sources(cuts, references, writer.problem)
    info, method = catalog().method(_only_method(cuts)), mergekit_method(_only_method(cuts))
    settings = tuple(unbound(method, info, cut, writer.problem) for cut in cuts)
    bases = tuple(_base(method, info, cut) for cut in cuts)
    if method.base == "required" and not info.needs_base:
        # What is first for us is the base for mergekit, wherever it stands; so they stand as they are declared.
        cuts = tuple(_declared_order(cut, recipe) for cut in cuts)
    donor = recipe.donor or _first_used(recipe, cuts)
    stage = _Stage(recipe, references, cuts, settings, bases, _base_model(method, bases[0], donor, cuts), donor)
    if info.random:
        writer.notes.append(
            f"mergekit draws {info.name}'s masks from its own stream: pass it --random-seed; they are other masks."
        )
    return {
        "merge_method": method.name,
        **({} if stage.base is None else {"base_model": stage.model(stage.base)}),
        **(_models(stage) if cuts[0].layers is None else _slices(stage)),
        "dtype": "float32",
        "out_dtype": recipe.save_dtype,
        **_tokenizer(stage, writer.notes),
    }


def _check_fields(recipe: Recipe, refused: Callable[[MergekitError], None]) -> None:
    """Whatever a recipe learns to say is refused until somebody says how mergekit does."""
    for name, field in Recipe.model_fields.items():
        if name not in _SAID and getattr(recipe, name) != field.get_default(call_default_factory=True):
            refused(MergekitError(f"mergekit has nothing like `{name}`: leave it out", where=name))


def _only_method(cuts: Sequence[Cut]) -> str:
    methods = list(dict.fromkeys(cut.method for cut in cuts))
    if len(methods) > 1:
        raise MergekitError(
            f"mergekit has one method for all slices, but these have {methods!r}: make each merge a recipe of its own "
            "and stack their layers by passthrough",
            where="slices",
        )
    return methods[0]


def _cuts(writer: _Writer, recipe: Recipe) -> tuple[Cut, ...]:
    """Every form as mergekit's slices; a merge of whole models stays one."""
    if recipe.merge is None:
        form = _formed(writer, recipe)
        if (form.embed.sources[0].source, form.head.sources[0].source) != _ends(form):
            raise MergekitError(
                "mergekit takes embedding and head from the first and last slice: take theirs", where="path"
            )
        if any(factor != 1.0 for factor in form.streams or ()):
            writer.problem(
                MergekitError("mergekit has no factors on the residual stream: leave out scales", where="path")
            )
        return tuple(cut for part in form.slices for cut in cuts_of(part))
    merge, names = recipe.merge, _merged(recipe, recipe.merge)
    if any(has_groups(value) for value in merge.params.values()):
        whole = (0, writer.depth(recipe, names[0]))
        sources = tuple(SliceSource(source=name, range=whole) for name in names)
        return cuts_of(Slice(sources=sources, method=merge.method, base=merge.base, params=merge.params))
    return (Cut(names, None, merge.method, merge.base, merge.params),)


def _ends(form: Form) -> tuple[str, str]:
    return form.slices[0].sources[0].source, form.slices[-1].sources[0].source


def _merged(recipe: Recipe, merge: Merge) -> tuple[str, ...]:
    """The sources of a merge, the base where the recipe declares it if that keeps the others' order."""
    info, declared = catalog().method(merge.method), [source.name for source in recipe.sources]
    takes_base = merge.base is not None and (info.needs_base or info.optional_base)
    names = merge.sources or tuple(name for name in declared if not (takes_base and name == merge.base))
    if not takes_base or merge.base in names:
        return tuple(names)
    both = [*names, str(merge.base)]
    kept = sorted(both, key=lambda name: declared.index(name) if name in declared else len(declared))
    return tuple(kept) if [name for name in kept if name != merge.base] == list(names) else tuple(both)


def _base(method: Method, info: MethodInfo, cut: Cut) -> str | None:
    """The base of a cut, in mergekit's sense."""
    if method.base == "ignored":
        return None
    base = cut.base if info.needs_base or info.optional_base else cut.sources[0]
    if base is None and method.base == "required":
        raise MergekitError(f"{info.name!r} takes deltas against a base: name one in `base`", where="base")
    return base


def _declared_order(cut: Cut, recipe: Recipe) -> Cut:
    declared = [source.name for source in recipe.sources]
    order = sorted(range(len(cut.sources)), key=lambda i: declared.index(cut.sources[i]))
    layers = None if cut.layers is None else tuple(cut.layers[i] for i in order)
    return replace(cut, sources=tuple(cut.sources[i] for i in order), layers=layers)


def _check_sources(
    cuts: Sequence[Cut], references: Mapping[str, Reference], refused: Callable[[MergekitError], None]
) -> None:
    for cut in cuts:
        for name in (*cut.sources, *([cut.base] if cut.base else [])):
            if name not in references:
                raise MergekitError(f"the recipe has no source {name!r}: name one of its own", where=name)
        texts = [references[name].text for name in cut.sources]
        for text in {text for text in texts if texts.count(text) > 1}:
            refused(
                MergekitError(
                    f"mergekit 0.1.5 takes a model once in a slice, but {text!r} enters more often: add up its weights",
                    where="sources",
                )
            )


def _first_used(recipe: Recipe, cuts: Sequence[Cut]) -> str:
    used = {name for cut in cuts for name in cut.sources}
    return next(source.name for source in recipe.sources if source.name in used)


def _base_model(method: Method, base: str | None, donor: str, cuts: Sequence[Cut]) -> str | None:
    """The base, or for a method without one the model whose tokenizer and config mergekit is to take."""
    if method.base != "ignored":
        return base
    # mergekit adds a base_model to `models`; to slices it does not.
    return donor if cuts[0].layers is not None or donor in cuts[0].sources else None


def _models(stage: _Stage) -> dict[str, Any]:
    (cut,), (found,) = stage.cuts, stage.settings
    models = [_with({"model": stage.model(name)}, found.own.get(name)) for name in cut.sources]
    return _with({"models": models}, found.shared)


def _slices(stage: _Stage) -> dict[str, Any]:
    """Slices; settings that all of them share stand once, in the configuration."""
    settings = stage.settings
    common = settings[0].shared if all(found.shared == settings[0].shared for found in settings) else {}
    slices = []
    for cut, found, base in zip(stage.cuts, settings, stage.bases, strict=True):
        part: dict[str, Any] = {
            "sources": [
                _with({"model": stage.model(name), "layer_range": list(layers)}, found.own.get(name))
                for name, layers in zip(cut.sources, cut.layers or (), strict=True)
            ]
        }
        if base is not None and base != stage.base:
            part["base_model"] = stage.model(base)
        slices.append(_with(part, {} if common else found.shared))
    return _with({"slices": slices}, common)


def _with(part: dict[str, Any], parameters: dict[str, Any] | None) -> dict[str, Any]:
    return {**part, "parameters": parameters} if parameters else part


def _tokenizer(stage: _Stage, notes: list[str]) -> dict[str, Any]:
    wanted, donor = stage.recipe.tokenizer, stage.donor
    if donor not in stage.references:
        raise MergekitError(f"the tokenizer must be a source's, but there is no {donor!r}: name one", where="tokenizer")
    first = stage.base or stage.cuts[0].sources[0]
    if stage.base is None:
        notes.append("without base_model mergekit takes the config of whichever model comes first in a set.")
    if not isinstance(wanted, Tokenizer):
        if donor == first:
            return {}
        notes.append(f"mergekit takes {donor!r}'s tokenizer by matching tokens, and drops embedding rows without one.")
        return {"tokenizer": {"source": stage.model(donor)}}
    if wanted.mode == "union" and donor != first:
        raise MergekitError(
            f"mergekit starts a union from the base_model, but the recipe's starts from {donor!r}: take {first!r}",
            where="tokenizer",
        )
    same = "base" if donor == stage.base else stage.model(donor)
    source = "union" if wanted.mode == "union" else same
    padding = {"pad_to_multiple_of": wanted.pad_to_multiple_of} if wanted.pad_to_multiple_of is not None else {}
    return {"tokenizer": {"source": source, **padding}}
