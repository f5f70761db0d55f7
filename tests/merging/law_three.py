"""Run in a fresh process: print, as JSON, the weights digest of every recipe, resident and exported in three ways."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from core.checkpoint import read_header, weights_digest
from core.model import Model
from core.recipe import Recipe, resolve
from merging.export import export
from merging.resident import Resident
from merging.resident import weights_digest as resident_digest
from merging.sources import Parents

SHARD_BYTES = (50_000, 10**9)


def recipes() -> dict[str, dict[str, object]]:
    gradient = {"a": [0.2, 0.9], "b": {"groups": [0.4, 0.6]}}
    merges = {
        "linear": {"params": {"weight": gradient}},
        "slerp": {"params": {"t": [0.1, 0.7]}},
        "task_arithmetic": {"base": "base", "params": {"weight": gradient, "lambda": 0.8}},
        "ties": {"base": "base", "params": {"weight": gradient, "density": 0.4}},
        "dare_ties": {"base": "base", "params": {"weight": gradient, "density": 0.6, "rescale": "l1"}},
    }
    forms: dict[str, dict[str, object]] = {
        name: {"merge": {"method": name, "sources": ["a", "b"], **merge}} for name, merge in merges.items()
    }
    forms["dus"] = {"layout": {"preset": "dus", "source": "a", "params": {"m": 1}}}
    return forms


def main(folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    models = {}
    for name in ("base", "a", "b"):
        header = read_header(folder / name)
        models[name] = Model(name=name, ref="local:x", weights_digest=weights_digest(folder / name), header=header)
    parents = Parents(
        {m.weights_digest: folder / n for n, m in models.items()}, {m.weights_digest: m.header for m in models.values()}
    )
    resident = Resident(parents)
    sources = [{"name": name, "model": name} for name in models]
    found = {}
    for dtype in ("float32", "bfloat16"):
        for name, form in recipes().items():
            recipe = resolve(
                Recipe.model_validate({"sources": sources, "save_dtype": dtype, "seed": 9, **form}), models
            )
            digests = [resident_digest(resident.build(recipe))]
            for size in SHARD_BYTES:
                with tempfile.TemporaryDirectory() as out:
                    info = export(
                        recipe, parents, Path(out) / "out", max_shard_bytes=size, tokenizer_folder=folder / "base"
                    )
                    digests += [info.weights_digest, weights_digest(Path(out) / "out")]
            found[f"{name} {dtype}"] = {"recipe": recipe.digest(), "keys": recipe.layer_keys(), "weights": digests}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
