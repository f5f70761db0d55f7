"""What samples of weights are tried on: a grown nursery, generators trained on its models, and texts they never saw.

The nursery's base had its norms spread by a rescale that leaves its function alone, so that its norms mean something.
Families are grown under HUARIZO_BENCHMARK_NURSERIES (a temporary folder without it); generators are kept beside them,
under a name that covers the sources, the settings and the code that trains.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.claims import ROOT
from benchmarks.search_nursery import SPECIALISTS, Nursery
from core.draws import Draw
from core.generators import Parameterisation, Training, training
from core.noun import digest_of
from core.recipe import Merge, Recipe, ResolvedRecipe, identity, resolve
from core.recipe.short import Dtype
from core.recipe.short import Source as Named
from core.tasks import Side
from examples.nursery.corpus import SKILLS, Lessons
from examples.nursery.forms import blames, breedings, crafts
from examples.nursery.grow import grow
from examples.nursery.training import batches, token_loss
from examples.nursery.world import make_world, purpose_rng
from merging.generation.artifact import digest_at, load, save
from merging.generation.dataset import Source
from merging.generation.generator import Generator
from merging.generation.sources import model_source
from merging.generation.training import train
from merging.resident import Built

Floats = NDArray[np.float64]

FAMILY = 7
#: Search and held-out items per task, and texts of each kind that perplexity is taken on.
ITEMS: Mapping[Side, int] = {"search": 300, "heldout": 1000}
TEXTS = 600
ROWS = 64
NORMS = ("norms",)
PARENTS = ("base", *SPECIALISTS)
#: The last block, all values: as many numbers in the code as in the chunk. What is sampled is not looked at, so its
#: denoiser is left as it begins.
BLOCK = training(selectors=("block:-1",), parameterisation="full", autoencoder_steps=600, denoiser_steps=1)
MERGE = "task_arithmetic"


@dataclass(frozen=True)
class Kept:
    """A generator on disk.

    Attributes:
        digest, folder: its name and place.
        seconds: its training took, where it was trained just now.
    """

    digest: str
    folder: Path
    seconds: float | None = None

    def opened(self) -> Generator:
        """In memory."""
        return load(self.folder, digest=self.digest)


@dataclass
class Setting:
    """The place where all parts measure.

    Attributes:
        family: seed of the nursery.
        items: per task and side.
        generators: trained so far, by digest.
    """

    family: int = FAMILY
    items: Mapping[Side, int] = field(default_factory=lambda: ITEMS)
    generators: dict[str, Path] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the nursery lies."""
        return root() / str(self.family)

    @cached_property
    def nursery(self) -> Nursery:
        """Grown where it is not there yet."""
        grow(self.folder, seed=self.family)
        found = Nursery(self.folder, self.family, self.items)
        # The shelf of its resident model is this very mapping, so that what is trained later is found in it.
        found.resident.parents.generators.folders = self.generators
        return found

    def sources(self, *names: str) -> list[Source]:
        """Models to learn from."""
        nursery = self.nursery
        return [model_source(nursery.resident.parents, nursery.models[name].weights_digest) for name in names]

    def trained(self, sources: Sequence[Source], settings: Training, *, anew: bool = False) -> Kept:
        """A generator of some sources: the one that is kept, or trained now."""
        header = self.nursery.models["base"].header
        told = [[source.digest, source.score] for source in sources]
        key = digest_of([told, settings.model_dump(mode="json"), _code(), torch.__version__])
        folder = self.folder / "generators" / key[:24]
        seconds = None
        if anew or not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            begun = time.perf_counter()
            generator = train(header, sources, settings)
            seconds = time.perf_counter() - begun
            if not folder.exists():
                save(generator, folder)
        digest = digest_at(folder)
        self.generators[digest] = folder
        return Kept(digest, folder, seconds)

    def recipe(self, draw: Draw | None = None, *, around: Recipe | None = None, dtype: Dtype = "float32") -> Recipe:
        """A sample around a recipe, by default around the base as it is."""
        plain = identity("base", save_dtype=dtype) if around is None else around.evolve(save_dtype=dtype)
        return plain.evolve(generation=draw)

    def merged(self, weight: float = 1.0) -> Recipe:
        """The specialists' task vectors added to the base, all with one weight."""
        names = ("base", *SPECIALISTS)
        merge = Merge(method=MERGE, base="base", sources=SPECIALISTS, params={"weight": weight})
        return Recipe(sources=tuple(Named(name=n, model=n) for n in names), merge=merge, save_dtype="float32")

    def resolved(self, recipe: Recipe) -> ResolvedRecipe:
        """With every value told."""
        return resolve(recipe, self.nursery.models)

    def build(self, recipe: Recipe, *, apart: bool = False) -> Built:
        """In the resident model."""
        return self.nursery.resident.build(self.resolved(recipe), apart=apart)

    @cached_property
    def hearsay(self) -> tuple[Tensor, ...]:
        """What the base speaks, about things that it never read of."""
        return self._rows("test", self._lessons("test").base_texts(self.family + 1, TEXTS))

    @cached_property
    def skills(self) -> tuple[Tensor, ...]:
        """What the specialists speak, a third of each, about things that none of them read of."""
        lessons = self._lessons("test")
        told = [lessons.specialist_texts(self.family + 1, skill, TEXTS // len(SKILLS)) for skill in SKILLS]
        return self._rows("test", [text for part in told for text in part])

    @cached_property
    def practice(self) -> tuple[Tensor, ...]:
        """As `skills`, of the split that searches may look at."""
        lessons = self._lessons("validation")
        told = [lessons.specialist_texts(self.family + 2, skill, TEXTS // len(SKILLS)) for skill in SKILLS]
        return self._rows("validation", [text for part in told for text in part])

    def loss(self, recipe: Recipe, rows: Sequence[Tensor]) -> float:
        """Mean negative log-likelihood of a candidate, in nats per token."""
        return loss_of(self.build(recipe).model, rows)

    def _lessons(self, split: str) -> Lessons:
        world = make_world(self.family)
        return Lessons(world, {"arc": breedings(world, split), "wino": blames(split), "hella": crafts(split)})

    def _rows(self, purpose: str, texts: Sequence[str]) -> tuple[Tensor, ...]:
        tokenizer = Tokenizer.from_file(str(self.nursery.family.base / "tokenizer.json"))
        return tuple(batches(tokenizer, texts, ROWS, purpose_rng(self.family, f"benchmark/{purpose}")))


def norms_generator(setting: Setting) -> Kept:
    """The norms of the base, all settings at their defaults."""
    return setting.trained(setting.sources("base"), training())


def block_generator(setting: Setting) -> Kept:
    """The last block of the base."""
    return setting.trained(setting.sources("base"), BLOCK)


def everything(setting: Setting) -> tuple[str, ...]:
    """The selectors of all norms and all blocks."""
    return (*NORMS, *(f"block:{layer}" for layer in range(setting.nursery.models["base"].header.layers)))


def parents_generator(setting: Setting, parameterisation: Parameterisation = "gain") -> Kept:
    """Norms and every matrix in the stack, of the base and its specialists: by default by the norms of their rows."""
    settings = training(selectors=everything(setting), parameterisation=parameterisation)
    return setting.trained(setting.sources(*PARENTS), settings)


@torch.no_grad()
def loss_of(model: PreTrainedModel, rows: Sequence[Tensor]) -> float:
    """Mean negative log-likelihood over all rows' tokens, in nats; every row of the batches counts by its tokens."""
    total, count = 0.0, 0
    for batch in rows:
        tokens = int((batch[:, 1:] != 0).sum())
        total += float(token_loss(model, batch)) * tokens
        count += tokens
    return total / count


def root() -> Path:
    """Where nurseries are grown."""
    return Path(os.environ.get("HUARIZO_BENCHMARK_NURSERIES", f"{gettempdir()}/huarizo-nurseries"))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes on so many cores inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _code() -> str:
    """sha256 over the code that trains."""
    total = hashlib.sha256()
    for file in sorted((ROOT / "merging" / "generation").glob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()
