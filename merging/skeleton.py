"""Models without weights: the modules of an output config, ready to be handed tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.architectures import Architecture, architecture_of
from core.errors import CheckpointError

#: A tensor's name, a module's parameters, the attribute among them, and a parameter on the meta device.
Spot = tuple[str, dict[str, torch.nn.Parameter | None], str, torch.nn.Parameter]


@dataclass(frozen=True)
class Skeleton:
    """A model whose parameters are yet to be set.

    Attributes:
        model: in eval mode; every layer is a module of its own with its own `layer_idx`, so that layers which share
            tensors never share a place in the key-value cache.
        places: the modules and attributes that hold each tensor, by name (two where the embedding is tied).
    """

    model: PreTrainedModel
    places: Mapping[str, tuple[tuple[torch.nn.Module, str], ...]]

    def fill(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Set every parameter, without a copy.

        Raises:
            CheckpointError: a tensor the model has no place for, or a place without a tensor.
        """
        if parameters.keys() != self.places.keys():
            odd = sorted(parameters.keys() ^ self.places.keys())
            raise CheckpointError(
                f"the tensors must be those of {type(self.model).__name__}, but {odd[0]!r} is only in one of them: "
                "export the parent again",
                where=odd[0],
            )
        for name, held, attribute, _ in self._spots:
            held[attribute] = parameters[name]

    def empty(self) -> None:
        """Let go of every tensor: the model fails if it is used before it is filled again."""
        for _, held, attribute, nothing in self._spots:
            held[attribute] = nothing

    @cached_property
    def _spots(self) -> list[Spot]:
        """Every place with its tensor's name, and what stands there while there is no candidate."""
        nothing: dict[tuple[torch.Size, torch.dtype], torch.nn.Parameter] = {}
        spots = []
        for name, module, attribute in ((name, *place) for name, places in self.places.items() for place in places):
            held = module._parameters[attribute]
            assert held is not None
            kind = held.shape, held.dtype
            if kind not in nothing:
                nothing[kind] = torch.nn.Parameter(torch.empty_like(held, device="meta"), requires_grad=False)
            spots.append((name, module._parameters, attribute, nothing[kind]))
        return spots


def build_skeleton(
    config: Mapping[str, Any], dtype: torch.dtype, device: torch.device, attn_implementation: str
) -> Skeleton:
    """The model of a `config.json`, its parameters on the meta device and its buffers on `device`.

    Args:
        config: the output config.
        dtype: of the parameters.
        device: of the buffers.
        attn_implementation: transformers' name of the attention kernel; `eager` stands in where a family has no `sdpa`.

    Raises:
        CheckpointError: transformers does not know the family, or a buffer cannot be computed from the config.
    """
    fields = {key: value for key, value in config.items() if key not in ("model_type", "torch_dtype")}
    kind = str(config["model_type"])
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise CheckpointError(
            f"scoring needs a causal language model that transformers knows, but it knows none of type {kind!r}: "
            "export the candidate and score it elsewhere",
            where="model_type",
        )
    typed = AutoConfig.for_model(kind, **fields)
    if attn_implementation == "sdpa" and not MODEL_FOR_CAUSAL_LM_MAPPING[type(typed)]._supports_sdpa:
        attn_implementation = "eager"  # Gemma 2, whose attention caps its logits.
    # On the meta device transformers ties what is tied and initialises nothing.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(typed, dtype=dtype, attn_implementation=attn_implementation)
    _compute_buffers(model, device)
    return Skeleton(model.eval(), _places(model, architecture_of(kind)))


def _compute_buffers(model: PreTrainedModel, device: torch.device) -> None:
    """Buffers are computed on the CPU, as loading from a folder does, and then moved."""
    for module in model.modules():
        if not module._buffers:
            continue
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.full_like(buffer, float("nan"), device="cpu")
        model._init_weights(module)
        for name, buffer in module._buffers.items():
            if buffer is not None and not bool(torch.isfinite(buffer).all()):
                raise CheckpointError(f"buffer {name!r} of {type(module).__name__} cannot be computed from the config")
            # Not the module as a whole: its weights may still be on the meta device.
            module._buffers[name] = buffer if buffer is None else buffer.to(device)


def _places(model: PreTrainedModel, architecture: Architecture) -> dict[str, tuple[tuple[torch.nn.Module, str], ...]]:
    """Every parameter's places by its first name, as checkpoints have it; tied parameters are one."""
    names: dict[int, str] = {}
    places: dict[str, list[tuple[torch.nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                full = f"{prefix}.{attribute}"
                name = names.setdefault(id(parameter), architecture.canonical(full) or full)
                places.setdefault(name, []).append((module, attribute))
    return {name: tuple(found) for name, found in places.items()}
