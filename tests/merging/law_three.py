"""Run in a fresh process: print, as JSON, the weights digest of every recipe, resident and exported in several ways.

    python law_three.py FOLDER THREADS ORDER SCOPE

ORDER `backwards` builds the recipes, and the tensors of each, from the last to the first. SCOPE `quick` saves each
recipe in one dtype and exports it in one way; `full` tries them all.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from core.catalog import MethodInfo
from core.checkpoint import read_header, weights_digest
from core.model import Model
from core.recipe import Recipe, ResolvedRecipe, resolve
from merging.compute import compute
from merging.export import export
from merging.methods import methods
from merging.plan import plan
from merging.resident import Built, Resident
from merging.resident import weights_digest as resident_digest
from merging.sources import Parents
from merging.statistics import Statistics

DTYPES = ("float32", "bfloat16")
SHARD_BYTES = (50_000, 10**9)
NAMES = ("base", "a", "b", "c")
GRADIENT = {"a": [0.2, 0.9], "b": {"groups": [0.4, 0.6]}, "c": 0.3}


def recipes() -> dict[str, dict[str, Any]]:
    """Every method of the registry, with and without a base where it takes one, and a layout."""
    forms = {
        f"{method.info.name}{' on a base' if based else ''}": {"merge": merge_of(method.info, based)}
        for method in methods().values()
        for based in ((False, True) if method.info.optional_base else (method.info.needs_base,))
    }
    return {**forms, "dus": {"layout": {"preset": "dus", "source": "b", "params": {"m": 1}}}}


def merge_of(info: MethodInfo, based: bool) -> dict[str, Any]:
    """Two or three sources, with values that change along the stack where the method takes such."""
    sources = ["a", "b", "c"][: max(info.min_sources, min(2 + based, info.max_sources or 3))]
    values = {
        "weight": {name: GRADIENT[name] for name in sources},
        "density": 0.45,
        "rescale": "l1",
        "lambda": [0.8, 1.1],
        # Of nearswap, the furthest that a weight moves: less than the models are apart.
        "t": [0.005, 0.01] if info.name == "nearswap" else [0.1, 0.7],
        "parts": 3,
        "offset_2": [0.2, 0.4],
    }
    names = {spec.name for spec in info.params}
    params = {name: value for name, value in values.items() if name in names}
    return {"method": info.name, "base": "base" if based else None, "sources": sources, "params": params}


def main(folder: Path, threads: int, backwards: bool, full: bool) -> None:
    torch.set_num_threads(threads)
    models = {}
    for name in NAMES:
        header = read_header(folder / name)
        models[name] = Model(name=name, ref="local:x", weights_digest=weights_digest(folder / name), header=header)
    parents = Parents(
        {m.weights_digest: folder / n for n, m in models.items()}, {m.weights_digest: m.header for m in models.values()}
    )
    resident = Resident(parents)
    found = {}
    asked = list(resolved(models, full))
    for name, recipe in reversed(asked) if backwards else asked:
        digests = [visited(recipe, parents, backwards), resident_digest(resident.build(recipe))]
        for size in SHARD_BYTES if full else SHARD_BYTES[:1]:
            with tempfile.TemporaryDirectory() as out:
                info = export(
                    recipe, parents, Path(out) / "out", max_shard_bytes=size, tokenizer_folder=folder / "base"
                )
                digests += [info.weights_digest, weights_digest(Path(out) / "out")]
        found[name] = {"recipe": recipe.digest(), "keys": recipe.layer_keys(), "weights": digests}
    print(json.dumps(found))


def resolved(models: Mapping[str, Model], full: bool) -> Iterator[tuple[str, ResolvedRecipe]]:
    """The recipes in every dtype, or each in one of them, by turns."""
    sources = [{"name": name, "model": name} for name in NAMES]
    for number, (name, form) in enumerate(recipes().items()):
        for dtype in DTYPES if full else (DTYPES[number % 2],):
            recipe = Recipe.model_validate({"sources": sources, "save_dtype": dtype, "seed": 9, **form})
            yield f"{name} {dtype}", resolve(recipe, models)


def visited(recipe: ResolvedRecipe, parents: Parents, backwards: bool) -> str:
    """The digest of the tensors, computed one by one in the order asked for, with what is found out on the way kept."""
    plans, statistics = plan(recipe, parents.headers), Statistics()
    tensors = {p.name: compute(p, parents, statistics=statistics) for p in (reversed(plans) if backwards else plans)}
    return resident_digest(Built(model=None, parameters=tensors, keys=tuple))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "backwards", sys.argv[4] == "full")
