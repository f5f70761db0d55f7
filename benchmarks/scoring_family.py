"""Parents on disk and candidates bred of them into the resident model, for the scoring benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.scoring_setting import Corpus, random_llama
from core.checkpoint import read_header, weights_digest
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, Source, resolve
from merging.resident import Built, Resident
from merging.sources import Parents


class Family:
    """Random checkpoints of one shape with the corpus's tokenizer, opened as parents of candidates.

    Args:
        folder: where they are written.
        corpus: gives the tokenizer.
        sizes: the models' sizes.
        names: one model per name.
    """

    def __init__(self, folder: Path, corpus: Corpus, sizes: dict[str, int], names: tuple[str, ...]) -> None:
        write_family(folder, corpus, sizes, names)
        self.models = {name: _registered(folder / name) for name in names}
        parents = Parents(
            {model.weights_digest: folder / name for name, model in self.models.items()},
            {model.weights_digest: model.header for model in self.models.values()},
        )
        self.resident = Resident(parents)

    def recipe(self, **fields: Any) -> ResolvedRecipe:
        """Resolve a short recipe over all of the family, saved in float32."""
        sources = tuple(Source(name=name, model=name) for name in self.models)
        return resolve(Recipe(sources=sources, save_dtype="float32", **fields), self.models)

    @torch.no_grad()
    def build(self, recipe: ResolvedRecipe) -> Built:
        """The candidate in the resident model."""
        return self.resident.build(recipe)


def write_family(folder: Path, corpus: Corpus, sizes: dict[str, int], names: tuple[str, ...]) -> None:
    """Random checkpoints of one shape with the corpus's tokenizer, one per name."""
    for seed, name in enumerate(names):
        random_llama(sizes, seed).save_pretrained(folder / name)
        for file in corpus.tokenizer_folder.iterdir():
            shutil.copy(file, folder / name / file.name)


def _registered(folder: Path) -> Model:
    return Model(
        name=folder.name, ref=f"local:{folder.name}", weights_digest=weights_digest(folder), header=read_header(folder)
    )
