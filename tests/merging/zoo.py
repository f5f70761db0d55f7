"""Tiny random models of every family, and transformers' own modules put in another order to compare with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.architectures import architectures

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 3}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma2": GEMMA,
    "gemma3_text": {**GEMMA, "sliding_window_pattern": 3},
    "gpt2": {
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
    "llama": SIZES,
    "mistral": SIZES,
    "phi3": SIZES,
    "qwen2": {**SIZES, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
    "qwen3": {**SIZES, "head_dim": 16, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
}
FAMILIES = sorted(CONFIGS)


def write_pair(kind: str, folder: Path, save_tokenizer: Callable[[Path], None]) -> None:
    """A random model `base` of a family and a fine-tune `a`."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind]))
        for name in ("base", "a"):
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape)
            model.save_pretrained(folder / name)
            save_tokenizer(folder / name)


def logits(model: Any, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
    """What the model says."""
    with torch.no_grad():
        return model.eval()(tokens, **options).logits


def layers_of(model: Any) -> Any:
    """Its stack."""
    return next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))


def attention_of(layer: torch.nn.Module) -> Any:
    """The layer's attention."""
    return next(module for module in layer.modules() if hasattr(module, "scaling"))


def reference(path: Sequence[tuple[Path, int]], head: Path | None = None) -> Any:
    """transformers' own layers in another order, each with its new index.

    Args:
        path: (checkpoint, layer) from the first layer to the last; the first checkpoint gives what is before them.
        head: the checkpoint of the final norm and the head; the first one by default.
    """
    models = {
        folder: AutoModelForCausalLM.from_pretrained(folder)
        for folder in {each for each, _ in path} | {head}
        if folder is not None
    }
    first = path[0][0]
    config = json.loads((first / "config.json").read_text())
    family = architectures()[config["model_type"]]
    config[family.layers_key] = len(path)
    if family.layer_types is not None and family.layer_types.of(config, 0) is not None:
        config["layer_types"] = [models[folder].config.layer_types[layer] for folder, layer in path]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    state = {name: tensor for name, tensor in models[first].state_dict().items() if not _in_stack(name)}
    if head is not None:
        theirs = models[head].state_dict()
        after = [name for name in state if family.canonical(name) in family.head]
        state.update({name: theirs[name] for name in after if not (family.tied and name == "lm_head.weight")})
    model.load_state_dict(state, strict=False)
    for layer, (folder, index) in zip(layers_of(model), path, strict=True):
        layer.load_state_dict(layers_of(models[folder])[index].state_dict())
    return model


def _in_stack(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))
