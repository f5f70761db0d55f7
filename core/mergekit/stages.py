"""Multi-stage configurations: several documents, each with a `name` that the others may use as a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from core.errors import MergekitError
from core.mergekit.reference import ModelPath, Reference
from core.mergekit.schema import EXPERTS, Document, InputModel, OutputSlice, read_document
from core.recipe.limits import MAX_RECIPES

#: Levels of mappings and lists in a configuration; a stage within {"merges"} needs a dozen.
_LEVELS = 24
#: The key under which several documents stand in one mapping, where there is no YAML to part them.
MERGES = "merges"
Config = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def read_stages(config: Config) -> tuple[Document, ...]:
    """The stages, each behind those that it uses; the last is the result.

    Args:
        config: one configuration, a sequence of them, or {"merges": [...]}.

    Raises:
        MergekitError: malformed; a name used twice; a circle; a stage that the result does not use.
    """
    documents = _documents(config)
    names = [document.name for document in documents]
    for name in names:
        if names.count(name) > 1:
            called = "without a name" if name is None else f"called {name!r}"
            raise MergekitError(f"stages need names of their own, but several are {called}: rename one", where="name")
    uses = {document.name: _used_stages(document, names) for document in documents}
    ordered = _behind_what_it_uses(_result(uses), uses, (), {})
    for name in names:
        if name not in ordered:
            raise MergekitError(f"every stage must lead to the result, but {name!r} does not: remove it", where="name")
    by_name = {document.name: document for document in documents}
    return tuple(by_name[name] for name in ordered)


def is_mergekit(config: Any) -> bool:
    """Whether a parsed file holds mergekit's form, going by its keys."""
    documents = config if isinstance(config, list | tuple) else [config]
    keys = {"merge_method", MERGES, *EXPERTS}
    return any(isinstance(item, Mapping) and not keys.isdisjoint(item) for item in documents)


def references(document: Document) -> tuple[Reference, ...]:
    """Every model that a document names, in order of appearance, the base and the tokenizer's behind the others."""
    found = [item.model for item in inputs_of(document)]
    found += [part.base_model for part in slices_of(document) if part.base_model is not None]
    tokenizer = document.tokenizer.source if document.tokenizer is not None else document.tokenizer_source
    found += [item for item in (document.base_model, tokenizer) if isinstance(item, Reference)]
    return tuple(dict.fromkeys(found))


def slices_of(document: Document) -> tuple[OutputSlice, ...]:
    """The slices of a document, those of its modules included."""
    modules = (document.modules or {}).values()
    return tuple(document.slices or ()) + tuple(part for module in modules for part in module.slices or ())


def inputs_of(document: Document) -> Iterator[InputModel]:
    """The models of a document and of its modules, and the sources of its slices."""
    yield from document.models or ()
    for module in (document.modules or {}).values():
        yield from module.models or ()
    for part in slices_of(document):
        for source in part.sources:
            yield InputModel(model=source.model, parameters=source.parameters)


def stage_of(path: ModelPath, names: Sequence[str | None]) -> str | None:
    """The stage that a model path means, if it means one.

    Raises:
        MergekitError: a stage with a revision.
    """
    if path.path not in names:
        return None
    if path.revision is not None:
        raise MergekitError(f"a stage has no revisions, but got {path.text!r}: remove the @", where=path.path)
    return path.path


def _documents(config: Config) -> list[Document]:
    _check_depth(config)
    if isinstance(config, Mapping) and MERGES in config:
        if set(config) != {MERGES}:
            odd = sorted(map(str, set(config) - {MERGES}))
            raise MergekitError(f"beside {MERGES!r} there is nothing else, but got {odd!r}: remove it", where=odd[0])
        config = config[MERGES]
    parts = [config] if isinstance(config, Mapping) else config
    if not isinstance(parts, list | tuple) or not parts:
        raise MergekitError(f"a configuration is a mapping or several of them, but got {parts!r:.100}")
    if len(parts) > MAX_RECIPES:
        raise MergekitError(f"a configuration has at most {MAX_RECIPES} stages, but got {len(parts)}: use fewer")
    return [read_document(part, f"document {i + 1}" if len(parts) > 1 else "") for i, part in enumerate(parts)]


def _check_depth(config: Any) -> None:
    """Refuse what nobody writes by hand, without following it down."""
    level = [config]
    for _ in range(_LEVELS):
        parts = [part for part in level if isinstance(part, Mapping | list | tuple)]
        level = [item for part in parts for item in (part.values() if isinstance(part, Mapping) else part)]
        if not level:
            return
    raise MergekitError(f"a configuration has at most {_LEVELS} levels, but this one has more: write it flatter")


def _used_stages(document: Document, names: Sequence[str | None]) -> list[str | None]:
    paths = [path for reference in references(document) for path in (reference.model, reference.adapter) if path]
    used = [stage_of(path, names) for path in paths]
    return [name for name in used if name is not None]


def _result(uses: Mapping[str | None, list[str | None]]) -> str | None:
    """The document without a name, or the only one that no other uses."""
    used = {name for found in uses.values() for name in found}
    last = [None] if None in uses else [name for name in uses if name not in used]
    if len(last) != 1:
        raise MergekitError(f"one stage must be the result, but {last!r} are: leave one without a name", where="name")
    return last[0]


def _behind_what_it_uses(
    name: str | None,
    uses: Mapping[str | None, list[str | None]],
    above: tuple[str | None, ...],
    found: dict[str | None, None],
) -> Iterable[str | None]:
    """`found`, with what the stage uses and the stage itself behind it."""
    if name in above:
        raise MergekitError(f"stages may not use one another in a circle, but {name!r} does: part it", where="name")
    if name not in found:
        for used in uses[name]:
            _behind_what_it_uses(used, uses, (*above, name), found)
        found[name] = None
    return found
