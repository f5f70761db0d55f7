"""Runs inside mergekit's own environment: merge what the folder describes and write what came out.

    <that environment's python> -m benchmarks.oracle.generate FOLDER

FOLDER holds `cases.json`, `inputs.safetensors` and `draws.safetensors`; `expected.safetensors` and `told.json`
are written into it. Of the project only the standard-library modules of this package are used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mergekit.merge_methods import merge_tensors, registered_methods
from safetensors.torch import load_file, save_file

Json = dict[str, Any]


def main(folder: Path) -> None:
    """Answer every case of the folder."""
    torch.set_num_threads(1)
    asked = json.loads((folder / "cases.json").read_text())
    inputs, draws = load_file(folder / "inputs.safetensors"), load_file(folder / "draws.safetensors")
    known = {method.spec.name for method in registered_methods()}
    if missing := known ^ {case["method"] for case in asked}:
        raise SystemExit(f"every method of mergekit needs a case, and no other: see {sorted(missing)}")
    expected, errors = {}, {}
    for case in asked:
        try:
            expected[case["id"]] = answer(case, inputs, draws)
        except (RuntimeError, ValueError) as error:
            errors[case["id"]] = type(error).__name__
    save_file(expected, folder / "expected.safetensors")
    told = {
        "versions": {name: version(name).split("+")[0] for name in ("mergekit", "torch", "transformers")},
        "defaults": defaults(),
        "errors": errors,
    }
    (folder / "told.json").write_text(json.dumps(told))


def defaults() -> dict[str, Json]:
    """What mergekit takes for a parameter that is not given, by method and parameter."""
    return {
        method.spec.name: {each.name: each.default for each in method.spec.parameters if not each.required}
        for method in sorted(registered_methods(), key=lambda method: method.spec.name)
    }


def answer(case: Json, inputs: dict[str, torch.Tensor], draws: dict[str, torch.Tensor]) -> torch.Tensor:
    """What mergekit makes of one case, with its draws taken from `draws`."""
    names = [*case["models"], *([case["base"]] if case["base"] else [])]
    tensors = [inputs[f"{case['family']}/{name}"].clone() for name in names]
    with drawing(drawn_by(case, draws)), sorting_stably():
        merged: torch.Tensor = merge_tensors(
            tensors,
            case["method"],
            parameters=case["parameters"],
            ids=names,
            base_index=len(names) - 1 if case["base"] else None,
            dtype=torch.float32,
        )
    return merged.detach().clone().contiguous()


def drawn_by(case: Json, draws: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """The uniform numbers of every model that draws, in the order in which mergekit goes through them."""
    if not case["method"].startswith(("dare", "della")):
        return
    density = case["parameters"]["density"]
    for position, model in enumerate(case["models"]):
        if (density[model] if isinstance(density, dict) else density) < 1:
            yield draws[str(position)]


@contextmanager
def drawing(uniform: Iterator[torch.Tensor]) -> Iterator[None]:
    """Replace torch's Bernoulli draws by comparisons with given numbers, all of which must be used."""
    original: Any = torch.bernoulli

    def bernoulli(chances: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not ((chances >= 0) & (chances <= 1)).all():
            raise RuntimeError("a chance lies between 0 and 1")
        drawn = next(uniform)[: chances.numel()].reshape(chances.shape).to(torch.float32) / 2**24
        return (drawn < chances).to(chances.dtype)

    torch.bernoulli = bernoulli  # type: ignore[assignment]
    try:
        yield
        if (left := next(uniform, None)) is not None:
            raise SystemExit(f"mergekit drew less often than expected: {left.shape}")
    finally:
        torch.bernoulli = original


@contextmanager
def sorting_stably() -> Iterator[None]:
    """Keep equal numbers in order: mergekit leaves that open, and torch then does what the processor does fastest."""
    kept: dict[str, Any] = {name: getattr(torch, name) for name in ("sort", "argsort", "topk")}

    def topk(values: torch.Tensor, k: int, **kwargs: Any) -> Any:
        found = kept["sort"](values, dim=-1, descending=kwargs.pop("largest", True), stable=True)
        assert not kwargs
        return found.values[..., :k], found.indices[..., :k]

    replaced = {"sort": partial(kept["sort"], stable=True), "argsort": partial(kept["argsort"], stable=True)}
    try:
        for name, function in {**replaced, "topk": topk}.items():
            setattr(torch, name, function)
        yield
    finally:
        for name, function in kept.items():
            setattr(torch, name, function)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
