"""Architectures as data: where a family keeps its layers, its embedding and its head, and what its config means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field

from core.errors import CheckpointError
from core.noun import Noun

#: As a layer's index is written: no sign, no leading zero, no digits of other scripts, no number without end.
_LAYER_INDEX = re.compile(r"^(0|[1-9][0-9]{0,8})\Z")
#: As a `model_type` is written.
_MODEL_TYPE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class LayerTypes(Noun):
    """How a config says which kind of attention each layer has; a list under `layer_types` always wins.

    Attributes:
        rule: without a list, `listed` says nothing (all layers are alike); `from` slides from layer
            `max_window_layers` on where `use_sliding_window` is on and there is a window (Qwen); `every` slides in all
            layers but each `pattern`-th (Gemma).
        pattern_key, pattern_default: the config key of that pattern, and its value where the key is absent.
    """

    rule: Literal["listed", "from", "every"]
    pattern_key: str | None = None
    pattern_default: int = 1

    def of(self, config: Mapping[str, Any], layer: int) -> str | None:
        """The kind of one layer; None where the config makes no difference between layers."""
        listed = config.get("layer_types")
        if listed is not None:
            return str(listed[layer])
        if self.rule == "every":
            wanted = config.get(self.pattern_key) if self.pattern_key else None
            full = (layer + 1) % int(self.pattern_default if wanted is None else wanted) == 0
        elif self.rule == "from" and config.get("use_sliding_window"):
            first, windowless = config.get("max_window_layers"), config.get("sliding_window", 0) is None
            full = windowless or layer < int(28 if first is None else first)
        else:
            return None
        return "full_attention" if full else "sliding_attention"


class Rope(Noun):
    """How a family's config says its rotary embedding.

    Attributes:
        theta, theta_key: the default base, and the key of older configs.
        share, share_key: the share of a head's dimensions that turn, likewise.
        by_layer_type: sliding layers have a base of their own (`local_theta`), which no scaling touches.
        scaling_keys: the keys beside `type` that transformers 4 allows in `rope_scaling`; any where there are none.
    """

    theta: float
    theta_key: str = "rope_theta"
    share: float = 1.0
    share_key: str = "partial_rotary_factor"
    by_layer_type: bool = False
    local_theta: float | None = None
    local_theta_key: str | None = None
    scaling_keys: tuple[str, ...] = ()


class Fused(Noun):
    """A projection that makes queries, keys and values at once.

    Attributes:
        tensors: its weight and bias, as suffixes.
        axis: of its outputs: 0, or -1 for the last.
        order: `blocks` has all queries, then all keys, then all values; `heads` has them so for each head in turn.
    """

    tensors: tuple[str, ...]
    axis: Literal[0, -1]
    order: Literal["blocks", "heads"]


class Scaling(Noun):
    """Which of a layer's tensors take a factor on what the layer computes (see `core.recipe.factors`).

    Attributes:
        logits: those that make queries and keys, or that weigh them after their norm.
        fused: the projection that makes them, where one makes the values too.
        outputs: those that weigh what the layer adds to the residual stream.
        centred: norm weights w that the network uses as 1 + w.
    """

    logits: tuple[str, ...] = ()
    fused: Fused | None = None
    outputs: tuple[str, ...]
    centred: tuple[str, ...] = ()


class Architecture(Noun):
    """One model family. A family that is not known has only its `model_type`: all tensors stand outside the stack.

    Attributes:
        model_type: the `model_type` of its `config.json`.
        classes: the transformers classes that build it.
        prefix: what all names but the head's begin with; checkpoints of the bare stack lack it.
        renamed: names that stand for another one in some versions of transformers.
        layer: prefix of a layer's tensors, with `{}` for the layer index.
        embed: tensors before the stack, the token embedding first.
        head: tensors after the stack, in their order of use, the output matrix last.
        tied: whether the output matrix is the embedding where the config does not say.
        layers_key, width_key, heads_key: config keys of the depth, the width and the number of attention heads.
        place_key: a config key under which what a layer computes depends on its index.
        layer_types: how layers differ in their attention; None where they do not.
        rope: its rotary embedding; None for learned positions.
        meaning: config keys that decide what equal shapes mean, with the value of an absent one.
        transposed: whether its layers hold their matrices as (inputs, outputs), as GPT-2's Conv1D does.
        ignored: suffixes of layer tensors that are no weights, each with the reason.
        scaling: where factors on a layer's computation go; None where they cannot be folded into weights.
    """

    model_type: str
    classes: tuple[str, ...] = ()
    prefix: str = ""
    renamed: dict[str, str] = Field(default_factory=dict)
    layer: str = ""
    embed: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    tied: bool = False
    layers_key: str = ""
    width_key: str = "hidden_size"
    heads_key: str = "num_attention_heads"
    place_key: str | None = None
    layer_types: LayerTypes | None = None
    rope: Rope | None = None
    meaning: dict[str, Any] = Field(default_factory=dict)
    transposed: bool = False
    ignored: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    scaling: Scaling | None = None

    @property
    def known(self) -> bool:
        """Whether it is known where the layers are."""
        return bool(self.layer)

    @property
    def output(self) -> str | None:
        """The output matrix, which tied checkpoints do not hold."""
        return self.head[-1] if self.head else None

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The tensors that have one row per token: the token embedding and the output matrix."""
        return tuple(name for name in (*self.embed[:1], self.output) if name is not None)

    def layer_tensor(self, index: int, suffix: str) -> str:
        """The full name of a layer's tensor."""
        return self.layer.format(index) + suffix

    def locate(self, tensor: str) -> tuple[int, str] | None:
        """(layer index, suffix) of a layer's tensor, or None for embedding, head and families that are not known."""
        return _located(self.layer, tensor) if self.known else None

    def inputs_first(self, tensor: str) -> bool:
        """Whether this tensor, if it is a matrix, stands as (inputs, outputs) and not as (outputs, inputs)."""
        return self.transposed and self.locate(tensor) is not None

    def canonical(self, name: str) -> str | None:
        """The name under which a tensor of a checkpoint, or of a transformers model, is known here.

        Returns:
            None for what is no weight (see `ignored`).
        """
        name = self.renamed.get(name, name)
        if self.prefix and not name.startswith(self.prefix) and name not in self.head:
            name = self.prefix + name
        place = self.locate(name)
        return None if place is not None and place[1] in self.ignored else name

    def is_tied(self, config: Mapping[str, Any]) -> bool:
        """Whether the config says that the output matrix is the embedding."""
        said = config.get("tie_word_embeddings")
        return self.tied if said is None else bool(said)


@lru_cache(maxsize=1 << 16)
def _located(layer: str, tensor: str) -> tuple[int, str] | None:
    """As `Architecture.locate`. Asked for every tensor of every model of every recipe, and so remembered."""
    before, _, after = layer.partition("{}")
    if not tensor.startswith(before):
        return None
    index, dot, suffix = tensor[len(before) :].partition(after)
    return (int(index), suffix) if dot and _LAYER_INDEX.match(index) else None


@cache
def architectures() -> dict[str, Architecture]:
    """All known families by model type."""
    raw: dict[str, Any] = json.loads(resources.files("core").joinpath("architectures.json").read_text())
    return {name: Architecture(model_type=name, **fields) for name, fields in sorted(raw.items())}


def architecture_of(model_type: Any) -> Architecture:
    """The family of a `model_type`; one that is not known is merged tensor by tensor and has no layers.

    Raises:
        CheckpointError: it is no name at all.
    """
    if not isinstance(model_type, str) or not _MODEL_TYPE.match(model_type):
        raise CheckpointError(
            f"'model_type' of config.json must name a family, but is {str(model_type)[:100]!r}: export it again",
            where="model_type",
        )
    found = architectures().get(model_type)
    return found if found is not None else Architecture(model_type=model_type)
