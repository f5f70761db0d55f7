"""Parents to merge: a base of 160 M weights in 32 Llama layers, and fine-tunes of it, invented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerFast

from core.checkpoint import read_header, weights_digest
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, Source, resolve
from merging.sources import Parents

NAMES = ("base", "a", "b", "c")


@dataclass(frozen=True)
class Shape:
    """A Llama's measures."""

    layers: int = 32
    width: int = 576
    inner: int = 1536
    heads: int = 9
    vocabulary: int = 32_000

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shape by name."""
        square, wide, narrow = (self.width, self.width), (self.inner, self.width), (self.width, self.inner)
        layer: dict[str, tuple[int, ...]] = {f"self_attn.{part}_proj.weight": square for part in "qkvo"}
        layer |= {"mlp.gate_proj.weight": wide, "mlp.up_proj.weight": wide, "mlp.down_proj.weight": narrow}
        layer |= {"input_layernorm.weight": (self.width,), "post_attention_layernorm.weight": (self.width,)}
        ends = {"model.embed_tokens.weight": (self.vocabulary, self.width), "model.norm.weight": (self.width,)}
        ends["lm_head.weight"] = (self.vocabulary, self.width)
        return ends | {f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in layer.items()}

    def config(self, dtype: str) -> LlamaConfig:
        """What `config.json` says."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            tie_word_embeddings=False,
            architectures=["LlamaForCausalLM"],
            dtype=dtype,
        )


#: 160 M weights.
MEASURED = Shape()
#: As many layers, next to no weights: what is left is the fixed cost.
NARROW = Shape(width=32, inner=48, heads=4, vocabulary=64)


class Family:
    """Registered checkpoints in one folder.

    Args:
        folder: where they are; written if it is empty.
        shape: of every model.
        dtype: `float32` or `bfloat16`.
        names: the base, then its fine-tunes.
    """

    def __init__(self, folder: Path, shape: Shape, dtype: str, names: Sequence[str] = NAMES) -> None:
        self.folder, self.dtype = folder, dtype
        if not folder.exists():
            write(folder, shape, dtype, names)
        self.models = {name: _registered(folder / name) for name in names}
        self.tensors = len(shape.tensors())
        self.bytes = sum(info.elements for info in self.models["base"].header.tensors) * getattr(torch, dtype).itemsize

    def parents(self) -> Parents:
        """Opened, kept on the CPU."""
        return Parents(
            {model.weights_digest: self.folder / name for name, model in self.models.items()},
            {model.weights_digest: model.header for model in self.models.values()},
            keep_bytes=1 << 40,
        )

    def merge(self, method: str, count: int, params: dict[str, Any], *, base: bool) -> ResolvedRecipe:
        """A merge of the first fine-tunes."""
        merge = {"method": method, "sources": list(self.models)[1 : count + 1], "params": params}
        if base:
            merge["base"] = "base"
        sources = tuple(Source(name=name, model=name) for name in self.models)
        recipe = Recipe.model_validate({"sources": sources, "merge": merge, "save_dtype": self.dtype, "seed": 7})
        return resolve(recipe, self.models)


def write(folder: Path, shape: Shape, dtype: str, names: Sequence[str] = NAMES) -> None:
    """Write the checkpoints: normal weights, and fine-tunes a tenth of their size away."""
    kept = getattr(torch, dtype)
    base = {name: _normal(size, 0.02, place) for place, (name, size) in enumerate(shape.tensors().items())}
    for number, name in enumerate(names):
        tensors = {
            key: (tensor + (_normal(tensor.shape, 0.002, 1000 * number + place) if number else 0.0)).to(kept)
            for place, (key, tensor) in enumerate(base.items())
        }
        (folder / name).mkdir(parents=True)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        shape.config(dtype).save_pretrained(folder / name)
        words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, "w0"))
        PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder / name)


def _normal(shape: Sequence[int], size: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(tuple(shape)).normal_(0.0, size, generator=generator)


def _registered(folder: Path) -> Model:
    header = read_header(folder)
    return Model(name=folder.name, ref=f"local:{folder.name}", weights_digest=weights_digest(folder), header=header)
