"""Hidden states of lower stacks, kept from candidate to candidate: equal layers over equal tokens are read once.

A candidate that is equal to an earlier one up to layer k begins at layer k, with what entered that layer then. A
forward pass is known by a digest of its tokens and of what they see, a stack by a chain of keys: what enters layer k
depends on the embedding, on the layers below k and on the configuration, and on nothing else. The passes of a
candidate that begins higher are the very ones it would have made, so its results are equal bit for bit.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.noun import canonical_json, digest_of

#: Heights at which a stack without known relatives is kept.
HEIGHTS = 8
#: Stacks whose keys are remembered, to see where later ones part from them.
REMEMBERED = 64
#: Stacks after which what none of them stood on may go.
IDLE = 16
#: Parts of a configuration that say nothing of what a layer does with what enters it.
_NOT_OF_A_LAYER = frozenset({"num_hidden_layers", "n_layer", "layer_types", "_name_or_path", "transformers_version"})


@dataclass
class _Group:
    """What entered one layer over one lower stack, pass by pass.

    Attributes:
        study: whose candidates stand on it.
        used: the last stack that stood on it, counted.
        proven: whether a pass has begun here.
    """

    study: str | None
    used: int
    proven: bool = False
    states: dict[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(hidden.nbytes for hidden in self.states.values())


class HiddenStore:
    """Hidden states by the stack below them and the pass they belong to.

    Candidates are read one after the other, each in the same order of passes. Whatever gave way to the passes of its
    own stack would be gone when the next candidate comes for it, so nothing does: a full store lets go of whole groups
    (one layer's input over one lower stack) that nobody uses any more, then of every other one of the heights at which
    a stack without known relatives is kept, and then takes in no more.

    Args:
        max_bytes: how much may be kept, on the models' device; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._room = max_bytes
        self._groups: dict[str, _Group] = {}
        self._thinned: set[str] = set()
        self._stacks: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._count = 0
        self._tuples: dict[type, bool] = {}

    def stack(
        self, model: PreTrainedModel, embed_key: str, layer_keys: Sequence[str], study: str | None = ""
    ) -> Stack | None:
        """The candidate in `model`, ready to be read; None where nothing is kept of it, or it is not understood.

        Args:
            model: the candidate.
            embed_key: names what stands before its layers.
            layer_keys: names each of its layers; equal keys mean equal weights.
            study: whose candidate it is, where others of the study may have its lower layers; None where that is not to
                be expected: then a stack is kept only from where it has been seen to part from an earlier one.
        """
        layers = body_layers(model)
        if not self._max_bytes or layers is None or len(layers) != len(layer_keys):
            return None
        config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_OF_A_LAYER}
        first = digest_of([canonical_json(_plain(config)), str(model.dtype), embed_key])
        chain = tuple(accumulate(layer_keys, lambda below, layer: digest_of([below, layer]), initial=first))[:-1]
        cuts = frozenset(_common(chain, other) for other in self._stacks if other != chain) - {0}
        self._remember(chain)
        known = [self._groups[below] for below in chain if below in self._groups]
        for group in known:
            group.study, group.used = study, self._count
        step = max(1, -(-len(chain) // HEIGHTS))
        spread = [] if cuts or study is None else list(range(step, len(chain), step))
        return Stack(self, layers, chain, cuts, spread, study) if cuts or spread or known else None

    def _remember(self, chain: tuple[str, ...]) -> None:
        self._count += chain not in self._stacks
        self._stacks[chain] = None
        self._stacks.move_to_end(chain)
        while len(self._stacks) > REMEMBERED:
            self._stacks.popitem(last=False)

    def deepest(self, chain: Sequence[str], reading: str) -> tuple[int, Tensor] | None:
        """The highest layer whose input is kept for a pass, and that input."""
        for height in range(len(chain) - 1, 0, -1):
            group = self._groups.get(chain[height])
            if group is not None and reading in group.states:
                group.proven = True
                return height, group.states[reading]
        return None

    def keep(self, stack: Stack, height: int, reading: str, hidden: Tensor) -> None:
        """Keep what entered a layer, if there is room or some can be made."""
        below = stack.chain[height]
        if below in self._groups and reading in self._groups[below].states:
            return
        while self._room < hidden.nbytes <= self._max_bytes and self._make_room(stack, height):
            pass
        if hidden.nbytes <= self._room and below not in self._thinned:
            self._room -= hidden.nbytes
            group = self._groups.setdefault(below, _Group(stack.study, self._count))
            group.states[reading] = hidden.clone()

    def _make_room(self, stack: Stack, height: int) -> bool:
        """Let go of something that is worth less than what enters a layer of `stack`; False where nothing is."""
        others = [below for below in self._groups if below not in stack.chain]
        useless = [below for below in others if self._outlived(self._groups[below], stack, known=height in stack.cuts)]
        if useless:
            self._drop(min(useless, key=lambda below: self._groups[below].used))
            self._thinned.clear()
            return True
        if height not in stack.spread or len(stack.spread) == 1:
            return False
        thinned = {stack.chain[given_up] for given_up in stack.spread[::2]}
        stack.spread = stack.spread[1::2]
        self._thinned |= thinned
        for below in thinned & self._groups.keys():
            self._drop(below)
        return True

    def _outlived(self, group: _Group, stack: Stack, *, known: bool) -> bool:
        """Whether a layer's input in `stack`, at a height `known` to be shared or not, may take a group's place."""
        idle = self._count - group.used >= IDLE
        return idle or group.study != stack.study or (known and not group.proven)

    def _drop(self, below: str) -> None:
        self._room += self._groups.pop(below).nbytes

    def gives_tuples(self, layer: nn.Module) -> bool:
        """Whether a layer of this class, which was seen at work, hands on a tuple."""
        return self._tuples[type(layer)]

    def saw(self, layer: nn.Module, output: Any) -> None:
        """Take note of what a layer hands on."""
        self._tuples[type(layer)] = isinstance(output, tuple)


class Stack:
    """One candidate over a `HiddenStore`.

    Attributes:
        chain: names what enters each layer.
        cuts: heights up to which it is known to be equal to other candidates.
        spread: heights at which it is kept where there are no cuts, of which a full store gives up some.
        study: whose candidate it is.
    """

    def __init__(
        self,
        store: HiddenStore,
        layers: nn.ModuleList,
        chain: tuple[str, ...],
        cuts: frozenset[int],
        spread: list[int],
        study: str | None,
    ) -> None:
        self._store, self._layers = store, layers
        self.chain, self.cuts, self.spread, self.study = chain, cuts, spread, study

    def height(self, reading: str) -> int:
        """The layer at which a pass would begin now."""
        found = self._store.deepest(self.chain, reading)
        return 0 if found is None else found[0]

    def read(self, reading: str, forward: Callable[[], Tensor], *, whole: bool = False) -> Tensor:
        """Run a forward pass, beginning as high as can be.

        Args:
            reading: names the pass: its tokens, their places and all that they see.
            forward: runs the whole model.
            whole: begin at the bottom all the same, to fill every layer of a cache.
        """
        found = None if whole else self._store.deepest(self.chain, reading)
        begin, hidden = found or (0, None)
        with ExitStack() as hooks:
            if hidden is not None:
                hooks.enter_context(_skipping(self._layers, begin, self._store.gives_tuples(self._layers[0])))
                hooks.enter_context(_entering(self._layers[begin], lambda _: hidden))
            else:
                handle = self._layers[0].register_forward_hook(lambda layer, _, output: self._store.saw(layer, output))
                hooks.callback(handle.remove)
            for kept in (*self.cuts, *self.spread):
                if kept > begin:
                    hooks.enter_context(_entering(self._layers[kept], self._keeper(kept, reading)))
            return forward()

    def _keeper(self, height: int, reading: str) -> Callable[[Tensor], None]:
        return lambda hidden: self._store.keep(self, height, reading, hidden)


class _Skipped(nn.Module):
    """In the place of a layer that is not read."""

    def __init__(self, layer: nn.Module, tuples: bool) -> None:
        super().__init__()
        # Models ask their layers which kind of attention they have.
        self.attention_type = getattr(layer, "attention_type", None)
        self._gives_tuples = tuples

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states,) if self._gives_tuples else hidden_states


def reading_name(trunk: NDArray[Any], *arrays: NDArray[Any]) -> str:
    """The digest of a forward pass.

    Args:
        trunk: the tokens that its cache holds; those of the pass itself where there is nothing else.
        arrays: its tokens, their places, and where each one's subtree ends.
    """
    hashed = hashlib.blake2b(digest_size=16)
    for array in (trunk, *arrays):
        hashed.update(repr((array.shape, array.dtype.str)).encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def body_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """The stack of a model; None where it has none that is known."""
    body = model.base_model
    for name in ("layers", "h"):
        found = getattr(body, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    return None


@contextmanager
def _skipping(layers: nn.ModuleList, height: int, tuples: bool) -> Iterator[None]:
    held = list(layers[:height])
    for place, layer in enumerate(held):
        layers[place] = _Skipped(layer, tuples)
    try:
        yield
    finally:
        for place, layer in enumerate(held):
            layers[place] = layer


@contextmanager
def _entering(layer: nn.Module, visit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Show what enters a layer to `visit`, and let it be replaced by what that returns."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        replaced = visit(args[0] if args else kwargs["hidden_states"])
        if replaced is None:
            return args, kwargs
        return ((replaced, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": replaced})

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """The last place of the beginning that two chains share; 0 where they differ at once."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return max(0, count - 1)


def _plain(value: Any) -> Any:
    """A configuration as JSON: what is no JSON by its name."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | bool | type(None)) else repr(value)
