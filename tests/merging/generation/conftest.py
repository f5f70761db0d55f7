"""A tiny model that has learned something, with the spread of a real one's norms, and generators trained on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from core.checkpoint import read_header, weights_digest
from core.generators import training
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, Source, resolve
from merging.generation.artifact import save
from merging.generation.dataset import Source as Learned
from merging.generation.generator import Generator
from merging.generation.training import train
from merging.sources import Parents

torch.set_num_threads(1)
VOCABULARY, WIDTH, LAYERS, LENGTH = 48, 32, 3, 32
#: Short trainings: the networks begin as the identity, and a few steps shape the noise.
QUICK = {"width": 64, "blocks": 2, "autoencoder_steps": 150, "denoiser_steps": 250, "batch": 32}


def corpus(draws: torch.Generator, rows: int) -> torch.Tensor:
    """Sequences in which each token strongly suggests the next two: learnable, not certain."""
    tokens = torch.empty((rows, LENGTH), dtype=torch.int64).random_(0, VOCABULARY, generator=draws)
    noise = torch.empty((rows, LENGTH)).uniform_(generator=draws)
    for place in range(2, LENGTH):
        told = (5 * tokens[:, place - 1] + 3 * tokens[:, place - 2] + 1) % VOCABULARY
        tokens[:, place] = torch.where(noise[:, place] < 0.9, told, tokens[:, place])
    return tokens


def spread(model: LlamaForCausalLM, draws: torch.Generator) -> None:
    """Move exp(N(0, 1) / 2) per channel into every norm and out of its readers: the function stays."""
    layers = [
        (norm, readers)
        for layer in model.model.layers
        for norm, readers in (
            (layer.input_layernorm, (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)),
            (layer.post_attention_layernorm, (layer.mlp.gate_proj, layer.mlp.up_proj)),
        )
    ]
    for norm, readers in [*layers, (model.model.norm, (model.lm_head,))]:
        factor = torch.exp(0.5 * torch.empty(WIDTH).normal_(generator=draws))
        norm.weight.data.mul_(factor)
        for reader in readers:
            reader.weight.data.div_(factor)


@dataclass
class Nest:
    """A base and two fine-tunes on disk, and the text that perplexity is taken on."""

    folder: Path
    models: dict[str, Model]
    held: torch.Tensor

    def parents(self, **options: Any) -> Parents:
        places = {model.weights_digest: self.folder / name for name, model in self.models.items()}
        headers = {model.weights_digest: model.header for model in self.models.values()}
        return Parents(places, headers, **options)

    def learned(self, parents: Parents, *names: str) -> list[Learned]:
        def source(name: str) -> Learned:
            digest = self.models[name].weights_digest
            return Learned(digest, (digest,), lambda tensor: parents.tensor(digest, tensor))

        return [source(name) for name in names]

    def train(self, *names: str, **changes: Any) -> Generator:
        options = {key: changes.pop(key) for key in ("checkpoint", "progress", "save_every") if key in changes}
        settings = training(**QUICK | changes)
        return train(self.models["base"].header, self.learned(self.parents(), *names), settings, **options)

    def recipe(self, draw: Any = None, **fields: Any) -> ResolvedRecipe:
        """A merge (by default the base alone) with a draw around it."""
        merge = fields.pop("merge", {"method": "passthrough", "sources": ["base"]})
        sources = fields.pop("sources", tuple(Source(name=name, model=name) for name in self.models))
        fields = {"save_dtype": "float32", **fields}
        return resolve(Recipe(sources=sources, merge=merge, generation=draw, **fields), self.models)


@torch.no_grad()
def perplexity(model: Any, tokens: torch.Tensor) -> float:
    return float(model(tokens, labels=tokens).loss.exp())


@pytest.fixture(scope="session")
def nest(tmp_path_factory: pytest.TempPathFactory) -> Nest:
    folder = tmp_path_factory.mktemp("nest")
    draws = torch.Generator().manual_seed(11)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                intermediate_size=64,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
            )
        )
    fit(model, draws, steps=400, rate=8e-3)
    spread(model, draws)
    held = corpus(draws, 64)
    models = {}
    origin = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for name in ("base", "a", "b"):
        if name != "base":
            model.load_state_dict(origin)
            fit(model, draws, steps=30, rate=2e-3)
        model.save_pretrained(folder / name)
        digest = weights_digest(folder / name)
        models[name] = Model(name=name, ref=f"local:{name}", weights_digest=digest, header=read_header(folder / name))
    return Nest(folder, models, held)


def fit(model: LlamaForCausalLM, draws: torch.Generator, *, steps: int, rate: float) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        tokens = corpus(draws, 16)
        optimiser.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimiser.step()


@pytest.fixture(scope="session")
def one_shot(nest: Nest) -> Generator:
    """Norms of the base alone."""
    return nest.train("base")


@pytest.fixture(scope="session")
def of_parents(nest: Nest) -> Generator:
    """Norms, and the row norms of the last block, of three parents."""
    return nest.train("base", "a", "b", selectors=("norms", "block:-1"))


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Generator], tuple[str, Path]]:
    """Keep a generator on disk once; gives its digest and folder."""
    kept: dict[int, tuple[str, Path]] = {}

    def put(generator: Generator) -> tuple[str, Path]:
        if id(generator) not in kept:
            folder = tmp_path_factory.mktemp("shelf") / "generator"
            kept[id(generator)] = save(generator, folder), folder
        return kept[id(generator)]

    return put


@pytest.fixture(scope="session")
def take_perplexity() -> Callable[[Any, torch.Tensor], float]:
    return perplexity
