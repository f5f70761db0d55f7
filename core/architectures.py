"""Architectures as data: where a family keeps its layers, its embedding and its head."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Annotated, Any

from pydantic import Field

from core.errors import CheckpointError
from core.noun import Noun

#: As a layer's index is written: no sign, no leading zero, no digits of other scripts, no number without end.
_LAYER_INDEX = re.compile(r"^(0|[1-9][0-9]{0,8})\Z")


class Architecture(Noun):
    """Tensor names of one model family.

    Attributes:
        model_type: the `model_type` of its `config.json`.
        classes: the transformers classes that build it.
        layer: prefix of a layer's tensors, with `{}` for the layer index.
        embed: tensors before the stack.
        head: tensors after the stack, in their order of use.
        layers_key: the config key that counts layers.
        per_layer_keys: config keys that hold one value per layer.
    """

    model_type: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    layer: str
    embed: tuple[str, ...]
    head: tuple[str, ...]
    layers_key: str
    per_layer_keys: tuple[str, ...] = ()

    def layer_tensor(self, index: int, suffix: str) -> str:
        """The full name of a layer's tensor."""
        return self.layer.format(index) + suffix

    def locate(self, tensor: str) -> tuple[int, str] | None:
        """(layer index, suffix) of a layer's tensor, or None for embedding and head."""
        before, after = self.layer.split("{}")
        if not tensor.startswith(before):
            return None
        index, dot, suffix = tensor[len(before) :].partition(after)
        return (int(index), suffix) if dot and _LAYER_INDEX.match(index) else None


@cache
def architectures() -> dict[str, Architecture]:
    """All known families by model type."""
    raw: dict[str, Any] = json.loads(resources.files("core").joinpath("architectures.json").read_text())
    return {name: Architecture(model_type=name, **fields) for name, fields in sorted(raw.items())}


def architecture_of(model_type: str) -> Architecture:
    """The family of a `model_type`.

    Raises:
        CheckpointError: the family is not known.
    """
    try:
        return architectures()[model_type]
    except KeyError:
        known = ", ".join(architectures())
        raise CheckpointError(f"model_type {model_type!r} is not supported yet: use one of {known}") from None
