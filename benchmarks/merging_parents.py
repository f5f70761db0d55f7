"""Parents to merge: a base of 160 M weights in 32 Llama layers, and fine-tunes of it, invented."""

from __future__ import annotations

import json
import math
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
        hollow: make files of zeros that take no room on the disk.
    """

    def __init__(
        self, folder: Path, shape: Shape, dtype: str, names: Sequence[str] = NAMES, *, hollow: bool = False
    ) -> None:
        self.folder, self.dtype = folder, dtype
        if not folder.exists():
            (write_hollow if hollow else write)(folder, shape, dtype, names)
        self.models = {name: _registered(folder / name) for name in names}
        self.tensors = len(shape.tensors())
        self.bytes = sum(info.elements for info in self.models["base"].header.tensors) * getattr(torch, dtype).itemsize

    def parents(self, device: str = "cpu") -> Parents:
        """Opened, kept on the device."""
        return Parents(
            {model.weights_digest: self.folder / name for name, model in self.models.items()},
            {model.weights_digest: model.header for model in self.models.values()},
            device,
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
        _describe(folder / name, shape, dtype)


def write_hollow(folder: Path, shape: Shape, dtype: str, names: Sequence[str]) -> None:
    """Write checkpoints of zeros, different in one weight."""
    size, code = getattr(torch, dtype).itemsize, {"float32": "F32", "bfloat16": "BF16"}[dtype]
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name, dimensions in shape.tensors().items():
        start, end = end, end + size * math.prod(dimensions)
        header[name] = {"dtype": code, "shape": list(dimensions), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
            file.seek(-1, 2)
            file.write(bytes([number]))
        _describe(folder / name, shape, dtype)


def _describe(folder: Path, shape: Shape, dtype: str) -> None:
    shape.config(dtype).save_pretrained(folder)
    words = {f"w{i}": i for i in range(64)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "w0"))).save_pretrained(folder)


def _normal(shape: Sequence[int], size: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(tuple(shape)).normal_(0.0, size, generator=generator)


def _registered(folder: Path) -> Model:
    header = read_header(folder)
    return Model(name=folder.name, ref=f"local:{folder.name}", weights_digest=weights_digest(folder), header=header)
