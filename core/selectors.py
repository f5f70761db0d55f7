"""Selectors: which of a model's tensors a generator of weights is about, told from their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from core.architectures import Architecture
from core.errors import SelectorError

#: The weight of a norm, as every family calls it: `input_layernorm`, `q_norm`, `model.norm`, `ln_1`, `ln_f` ...
_NORM = re.compile(r"(^|[._])(layer_?norm|norm|ln_[0-9a-z]+)\.weight\Z")
#: `block:-1` and its like.
_LAYER = re.compile(r"^(block|ffn|attn):(-?(?:0|[1-9][0-9]{0,3}))\Z")
#: What the modules of a layer are called, by selector; all of its tensors belong to `block`.
_MODULES = {"block": ("",), "ffn": ("mlp.",), "attn": ("self_attn.", "attn.", "attention.")}
NORMS = "norms"
#: What each kind of selector finds; `k` counts from 0, or from the last layer down where it is negative.
SELECTORS = {
    NORMS: "the weights of all norms",
    "block:k": "all tensors of layer k",
    "ffn:k": "the feed-forward part of layer k",
    "attn:k": "the attention of layer k",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A selected tensor.

    Attributes:
        name: its full name.
        kind: what it is, whatever the layer: its suffix there, or its name outside the stack.
        layer: of the stack; -1 outside it.
    """

    name: str
    kind: str
    layer: int


def _known(selector: str) -> str:
    if selector != NORMS and _LAYER.match(selector) is None:
        raise ValueError(f"a selector is one of {', '.join(SELECTORS)}, but got {selector!r}: write one of these")
    return selector


def _each_once(selectors: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(selectors)) != len(selectors):
        raise ValueError(f"each selector may be given once, but got {list(selectors)!r}: leave one out")
    return selectors


Selector = Annotated[str, AfterValidator(_known)]
Selectors = Annotated[tuple[Selector, ...], Field(min_length=1, max_length=64), AfterValidator(_each_once)]


def select(
    names: Iterable[str], architecture: Architecture, depth: int, selectors: Sequence[str]
) -> tuple[Target, ...]:
    """The selected tensors, each once, in the order of their names.

    The embedding and the output matrix are never among them, tied or not.

    Args:
        names: of the model's tensors.
        architecture: its family.
        depth: layers of its stack.
        selectors: as `SELECTORS` writes them.

    Raises:
        SelectorError: a selector that finds nothing here.
    """
    places = [_target(name, architecture) for name in sorted(names) if name not in architecture.vocabulary]
    found: dict[str, Target] = {}
    for selector in selectors:
        own = {target.name: target for target in _found(selector, places, architecture, depth)}
        if not own:
            raise SelectorError(
                f"selector {selector!r} finds no tensor in a {architecture.model_type!r} of {depth} layers: choose "
                f"one of {', '.join(SELECTORS)}",
                where="selectors",
            )
        found |= own
    return tuple(found[name] for name in sorted(found))


def touches(selectors: Iterable[str], layer: int, depth: int) -> bool:
    """Whether a selector may find tensors in a layer."""
    return any(selector == NORMS or _layer_of(selector, depth) == layer for selector in selectors)


def _target(name: str, architecture: Architecture) -> Target:
    place = architecture.locate(name)
    return Target(name, name, -1) if place is None else Target(name, place[1], place[0])


def _found(selector: str, places: Sequence[Target], architecture: Architecture, depth: int) -> Iterator[Target]:
    if selector == NORMS:
        yield from (target for target in places if _NORM.search(target.name))
        return
    wanted, modules = _layer_of(selector, depth), _MODULES[selector.partition(":")[0]]
    for target in places:
        if target.layer >= 0 and target.layer == wanted and target.kind.startswith(modules):
            yield target


def _layer_of(selector: str, depth: int) -> int:
    """The layer that a selector means; one that is not there may come out."""
    match = _LAYER.match(selector)
    layer = int(match.group(2)) if match else -depth - 1
    return layer + depth if layer < 0 else layer
