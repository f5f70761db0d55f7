"""`models`, `slices` and `modules` as one thing: the parts of a stack and the models that enter each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from core.errors import MergekitError
from core.mergekit.methods import Method
from core.mergekit.reference import Reference
from core.mergekit.schema import Document, InputModel, OutputModule, OutputSlice
from core.mergekit.settings import Scope

#: A model, and which of its occurrences in one slice this is.
Key = tuple[Reference, int]


@dataclass(frozen=True)
class Input:
    """A model in a slice; `layers` is None where it enters whole."""

    key: Key
    layers: tuple[int, int] | None
    parameters: Scope


@dataclass(frozen=True)
class Part:
    """A slice.

    Attributes:
        sources: its models, in order.
        base: position of the base, where the method takes one.
        scopes: the parameters of the slice, the module and the configuration, with what they are called.
    """

    sources: tuple[Input, ...]
    base: int | None
    scopes: tuple[tuple[str, Scope], ...]

    def with_base_first(self) -> Part:
        """The same with the base before the other models."""
        assert self.base is not None
        others = self.sources[: self.base] + self.sources[self.base + 1 :]
        return replace(self, sources=(self.sources[self.base], *others), base=0)


@dataclass(frozen=True)
class Inputs:
    """The parts of a stack; `whole` where whole models are merged."""

    parts: tuple[Part, ...]
    whole: bool

    def references(self) -> tuple[Key, ...]:
        """Every model, in order of appearance."""
        return tuple(dict.fromkeys(source.key for part in self.parts for source in part.sources))


def read_inputs(document: Document, method: Method, note: Callable[[str], None]) -> Inputs:
    """What enters the merge.

    Raises:
        MergekitError: more than one module; a base that is missing.
    """
    models, slices = document.models, document.slices
    scopes: list[tuple[str, Scope]] = [("parameters.", document.parameters)]
    if document.modules:
        name, module = _only_module(document.modules)
        models, slices = module.models, module.slices
        scopes.insert(0, (f"modules.{name}.parameters.", module.parameters))
    if models:
        return Inputs((_whole(models, document.base_model, method, scopes, note),), True)
    assert slices
    if len(slices[-1].sources) > len(slices[0].sources):
        note("mergekit leaves the last slice's further models out of the head; here they enter it like the layers.")
    parts = [_sliced(i, part, document, method, scopes, note) for i, part in enumerate(slices)]
    return Inputs(tuple(parts), False)


def _only_module(modules: dict[str, OutputModule]) -> tuple[str, OutputModule]:
    if len(modules) > 1:
        raise MergekitError(
            f"a causal language model is one module, but got {sorted(modules)!r}: merge them one by one",
            where="modules",
        )
    return next(iter(modules.items()))


def _whole(
    models: Sequence[InputModel],
    base: Reference | None,
    method: Method,
    scopes: list[tuple[str, Scope]],
    note: Callable[[str], None],
) -> Part:
    """Whole models; mergekit puts a base that is not among them behind them, whatever the method."""
    listed = [(item.model, item.parameters) for item in models]
    if base is not None and base not in (model for model, _ in listed):
        listed.append((base, {}))
        if method.base == "ignored":
            note(
                f"mergekit merges base_model {base.text!r} with the other models, because {method.name} knows no "
                "base; so is it here."
            )
    sources = [
        Input(key, None, scope) for key, (_, scope) in zip(_keys([m for m, _ in listed], note), listed, strict=True)
    ]
    return Part(tuple(sources), _base(method, base, [m for m, _ in listed], "models"), tuple(scopes))


def _sliced(
    index: int,
    part: OutputSlice,
    document: Document,
    method: Method,
    scopes: list[tuple[str, Scope]],
    note: Callable[[str], None],
) -> Part:
    where = f"slices.{index}"
    if part.merge_method not in (None, document.merge_method):
        raise MergekitError(
            f"mergekit has one merge_method for all slices, but {where}.merge_method is {part.merge_method!r}: write "
            "a recipe, whose slices have methods of their own",
            where=f"{where}.merge_method",
        )
    if part.residual_weight is not None:
        note(f"{where}.residual_weight has no effect in mergekit, nor here.")
    models = [source.model for source in part.sources]
    sources = [
        Input(key, source.layer_range, source.parameters)
        for key, source in zip(_keys(models, note), part.sources, strict=True)
    ]
    base = _base(method, part.base_model or document.base_model, models, f"{where}.sources")
    return Part(tuple(sources), base, ((f"{where}.parameters.", part.parameters), *scopes))


def _keys(models: Sequence[Reference], note: Callable[[str], None]) -> list[Key]:
    """Each model with its number among its like."""
    seen: Counter[Reference] = Counter()
    keys: list[Key] = []
    for model in models:
        keys.append((model, seen[model]))
        seen[model] += 1
    for model, times in seen.items():
        if times > 1:
            note(f"{model.text!r} enters one slice {times} times, each for itself; mergekit 0.1.5 refuses that.")
    return keys


def _base(method: Method, base: Reference | None, models: Sequence[Reference], where: str) -> int | None:
    if method.base == "ignored" or (base is None and method.base == "optional"):
        return None
    if base is None:
        raise MergekitError(f"{method.name!r} needs a base, but there is no base_model: name one", where="base_model")
    if base not in models:
        raise MergekitError(
            f"the base must be among the models of every slice, but {base.text!r} is not in {where}: add it",
            where=where,
        )
    return models.index(base)
