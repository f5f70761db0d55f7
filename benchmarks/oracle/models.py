"""Tiny Llama checkpoints, and the merges of whole models that mergekit is asked for as configurations.

They compare how values are looked up (gradients, filters, slices, per-source values), not the arithmetic.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.oracle.families import MODELS, Array

LAYERS, WIDTH, INNER, HEADS, KEYS, VOCABULARY = 4, 16, 20, 2, 1, 24

#: mergekit's configurations, parsed; a model is called by the folder it lies in.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "gradients and filters": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {
                "model": "a",
                "parameters": {"weight": [{"filter": "mlp", "value": [0.1, 0.5, 1.0]}, {"value": 0.7}], "density": 0.6},
            },
            {
                "model": "b",
                "parameters": {
                    "weight": [{"filter": "self_attn", "value": 0.3}, {"value": [1.0, 0.2]}],
                    "density": [0.3, 0.9],
                },
            },
        ],
        "parameters": {"normalize": True, "lambda": [{"filter": "norm", "value": 0.5}, {"value": [0.8, 1.2]}]},
        "dtype": "float32",
    },
    "curves of t": {
        "merge_method": "slerp",
        "base_model": "a",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, LAYERS]}, {"model": "b", "layer_range": [0, LAYERS]}]}
        ],
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0.0, 0.5, 0.3, 0.7, 1.0]},
                {"filter": "mlp", "value": [1.0, 0.5, 0.7, 0.3, 0.0]},
                {"value": 0.5},
            ]
        },
        "dtype": "float32",
    },
    "slices of their own": {
        "merge_method": "linear",
        "slices": [
            {
                "sources": [
                    {"model": "a", "layer_range": [0, 3], "parameters": {"weight": [0.2, 0.8]}},
                    {"model": "b", "layer_range": [0, 3], "parameters": {"weight": 0.5}},
                ]
            },
            {
                "sources": [
                    {"model": "c", "layer_range": [1, 4], "parameters": {"weight": [1.0, 0.4, 0.6]}},
                    {"model": "a", "layer_range": [1, 4], "parameters": {"weight": [0.3, 0.9]}},
                ]
            },
        ],
        "dtype": "float32",
    },
    "a scaled stack": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "a", "layer_range": [0, 3]}]},
            {
                "sources": [
                    {
                        "model": "b",
                        "layer_range": [1, 4],
                        "parameters": {
                            "scale": [
                                {"filter": "o_proj", "value": 0.5},
                                {"filter": "down_proj", "value": 0.25},
                                {"value": 1.0},
                            ]
                        },
                    }
                ]
            },
        ],
        "dtype": "float32",
    },
}


def checkpoints() -> dict[str, dict[str, Array]]:
    """The tensors of `base` and of `a`, `b` and `c` around it."""
    generator = np.random.default_rng(99)
    base = {name: generator.normal(size=shape) * 0.1 for name, shape in shapes().items()}
    found = {
        model: {name: array + 0.03 * generator.normal(size=array.shape) for name, array in base.items()}
        for model in MODELS
    }
    return {
        model: {name: array.astype(np.float32) for name, array in tensors.items()}
        for model, tensors in {**found, "base": base}.items()
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of one checkpoint."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    keys = WIDTH // HEADS * KEYS
    for layer in range(LAYERS):
        inside = {
            "input_layernorm": (WIDTH,),
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.k_proj": (keys, WIDTH),
            "self_attn.v_proj": (keys, WIDTH),
            "self_attn.o_proj": (WIDTH, WIDTH),
            "post_attention_layernorm": (WIDTH,),
            "mlp.gate_proj": (INNER, WIDTH),
            "mlp.up_proj": (INNER, WIDTH),
            "mlp.down_proj": (WIDTH, INNER),
        }
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def write(folder: Path, tensors: dict[str, Array]) -> None:
    """A checkpoint folder that any reader of Llama checkpoints takes."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEYS,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
