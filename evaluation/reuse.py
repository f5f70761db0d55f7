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
#: Parts of a configuration that say nothing of what a layer does with what enters it.
_NOT_OF_A_LAYER = frozenset({"num_hidden_layers", "n_layer", "layer_types", "_name_or_path", "transformers_version"})


class HiddenStore:
    """Hidden states by the stack below them and the pass they belong to, the least recently used ones first to go.

    Args:
        max_bytes: how much may be kept, on the models' device; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._enabled = max_bytes > 0
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self._stacks: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._tuples: dict[type, bool] = {}

    def stack(self, model: PreTrainedModel, embed_key: str, layer_keys: Sequence[str]) -> Stack | None:
        """The candidate in `model`, ready to be read; None where nothing is kept or the model is not understood.

        Args:
            model: the candidate.
            embed_key: names what stands before its layers.
            layer_keys: names each of its layers; equal keys mean equal weights.
        """
        layers = body_layers(model)
        if not self._enabled or layers is None or len(layers) != len(layer_keys):
            return None
        config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_OF_A_LAYER}
        first = digest_of([canonical_json(_plain(config)), str(model.dtype), embed_key])
        chain = tuple(accumulate(layer_keys, lambda below, layer: digest_of([below, layer]), initial=first))[:-1]
        heights = self._heights(chain)
        self._stacks[chain] = None
        self._stacks.move_to_end(chain)
        while len(self._stacks) > REMEMBERED:
            self._stacks.popitem(last=False)
        return Stack(self, layers, chain, heights)

    def _heights(self, chain: tuple[str, ...]) -> frozenset[int]:
        """Where to keep this stack: where it parts from earlier ones, evenly spread where there are none."""
        shared = {_common(chain, other) for other in self._stacks if other != chain} - {0}
        step = max(1, -(-len(chain) // HEIGHTS))
        return frozenset(shared) or frozenset(range(step, len(chain), step))

    def deepest(self, chain: Sequence[str], reading: str) -> tuple[int, Tensor] | None:
        """The highest layer whose input is kept for a pass, and that input."""
        for height in range(len(chain) - 1, 0, -1):
            found = self._kept.get((chain[height], reading))
            if found is not None:
                self._kept.move_to_end((chain[height], reading))
                return height, found
        return None

    def keep(self, below: str, reading: str, hidden: Tensor) -> None:
        """Keep what entered a layer, if there is room once older things are gone."""
        key = (below, reading)
        if key in self._kept:
            return
        while self._kept and hidden.nbytes > self._room:
            self._room += self._kept.popitem(last=False)[1].nbytes
        if hidden.nbytes <= self._room:
            self._room -= hidden.nbytes
            self._kept[key] = hidden.clone()

    def gives_tuples(self, layer: nn.Module) -> bool:
        """Whether a layer of this class, which was seen at work, hands on a tuple."""
        return self._tuples[type(layer)]

    def saw(self, layer: nn.Module, output: Any) -> None:
        """Take note of what a layer hands on."""
        self._tuples[type(layer)] = isinstance(output, tuple)


class Stack:
    """One candidate over a `HiddenStore`."""

    def __init__(
        self, store: HiddenStore, layers: nn.ModuleList, chain: tuple[str, ...], heights: frozenset[int]
    ) -> None:
        self._store, self._layers, self._chain, self._heights = store, layers, chain, heights

    def height(self, reading: str) -> int:
        """The layer at which a pass would begin now."""
        found = self._store.deepest(self._chain, reading)
        return 0 if found is None else found[0]

    def read(self, reading: str, forward: Callable[[], Tensor], *, whole: bool = False) -> Tensor:
        """Run a forward pass, beginning as high as can be.

        Args:
            reading: names the pass: its tokens, their places and all that they see.
            forward: runs the whole model.
            whole: begin at the bottom all the same, to fill every layer of a cache.
        """
        found = None if whole else self._store.deepest(self._chain, reading)
        begin, hidden = found or (0, None)
        with ExitStack() as hooks:
            if hidden is not None:
                hooks.enter_context(_skipping(self._layers, begin, self._store.gives_tuples(self._layers[0])))
                hooks.enter_context(_entering(self._layers[begin], lambda _: hidden))
            else:
                handle = self._layers[0].register_forward_hook(lambda layer, _, output: self._store.saw(layer, output))
                hooks.callback(handle.remove)
            for kept in self._heights:
                if kept > begin:
                    hooks.enter_context(_entering(self._layers[kept], self._keeper(kept, reading)))
            return forward()

    def _keeper(self, height: int, reading: str) -> Callable[[Tensor], None]:
        return lambda hidden: self._store.keep(self._chain[height], reading, hidden)


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
