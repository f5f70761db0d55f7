"""`python -m benchmarks.oracle`: write the golden files anew, or see with `--check` whether they would change.

Masks of random methods are drawn by this project's hash, under the key that the tests use, and handed to mergekit, so
that both sides drop the same entries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.oracle import models
from benchmarks.oracle.cases import cases
from benchmarks.oracle.families import MODELS, Array, families
from benchmarks.oracle.venv import MERGEKIT, ROOT, TORCH, mergekit_python
from merging.randomness import hash24, mask_key

GOLDEN = ROOT / "tests" / "conformance" / "golden"
#: The recipe seed and the tensor's name that key the draws; a model's digest is its position.
SEED, TENSOR = 5, "weight"


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oracle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the golden files would change")
    parser.add_argument("--torch", default=TORCH, help="what pip is asked for in mergekit's environment")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        made = make(Path(name), mergekit_python(torch=arguments.torch))
        if arguments.check:
            check(made)
            return
        GOLDEN.mkdir(parents=True, exist_ok=True)
        for path in made.iterdir():
            (GOLDEN / path.name).write_bytes(path.read_bytes())
    size = sum(path.stat().st_size for path in GOLDEN.iterdir())
    print(f"wrote {len(cases())} cases of mergekit {MERGEKIT} to {GOLDEN.relative_to(ROOT)}, {size / 1e6:.2f} MB")


def make(folder: Path, python: Path) -> Path:
    """The folder of finished golden files, made within `folder`."""
    work, golden, whole = (folder / name for name in ("work", "golden", "whole"))
    for each in (work, golden, whole):
        each.mkdir()
    inputs = {f"{family}/{name}": array for family, arrays in families().items() for name, array in arrays.items()}
    save_file(inputs, work / "inputs.safetensors")
    save_file(draws(max(array.size for array in inputs.values())), work / "draws.safetensors")
    asked = [case.as_json() for case in cases()]
    (work / "cases.json").write_text(json.dumps(asked))
    _run(python, "generate", work)
    told = json.loads((work / "told.json").read_text())
    for name in ("inputs", "draws", "expected"):
        # Written again so that the order of tensors does not depend on the writer.
        save_file(dict(sorted(load_file(work / f"{name}.safetensors").items())), golden / f"{name}.safetensors")
    answered = [{**case, "error": told["errors"].get(case["id"])} for case in asked]
    (golden / "index.json").write_text(_index(told, answered))
    _whole_models(whole, golden, python)
    return golden


def _index(told: dict[str, Any], answered: list[dict[str, Any]]) -> str:
    """As JSON, a line per case, so that a change of one case is a change of one line."""
    parts = {
        "versions": json.dumps(told["versions"]),
        "defaults": json.dumps(told["defaults"]),
        "cases": "[\n" + ",\n".join(json.dumps(case) for case in answered) + "\n]",
    }
    return "{" + ",\n".join(f'"{name}": {value}' for name, value in parts.items()) + "}\n"


def draws(elements: int) -> dict[str, Array]:
    """24-bit uniform numbers per position of a model; a tensor takes as many of the first as it has elements."""
    return {
        str(position): hash24(mask_key(SEED, str(position), TENSOR), 0, elements, torch.device("cpu")).numpy()
        for position in range(len(MODELS))
    }


def check(made: Path) -> None:
    """Compare what was made with what is committed.

    Raises:
        SystemExit: a file differs; says by how much.
    """
    found = []
    for path in sorted(made.iterdir()):
        if path.suffix != ".safetensors":
            if path.read_bytes() != (GOLDEN / path.name).read_bytes():
                found.append(f"{path.name} differs")
            continue
        new, old = load_file(path), load_file(GOLDEN / path.name)
        found += [f"{path.name}: {name}" for name in sorted(new.keys() ^ old.keys())]
        for name in sorted(new.keys() & old.keys()):
            if new[name].shape != old[name].shape or not np.array_equal(new[name], old[name], equal_nan=True):
                found.append(f"{path.name}: {name}: {np.abs(new[name] - old[name]).max()}")
    if found:
        raise SystemExit("\n".join(["the golden files would change:", *found]))
    print("the golden files would not change")


def _whole_models(whole: Path, golden: Path, python: Path) -> None:
    (whole / "configurations.json").write_text(json.dumps(models.CONFIGURATIONS))
    tensors = models.checkpoints()
    for model, held in tensors.items():
        models.write(whole / model, held)
    _run(python, "generate_models", whole)
    kept = {f"{model}/{name}": array for model, held in tensors.items() for name, array in held.items()}
    for name in models.CONFIGURATIONS:
        for path in sorted((whole / "merged" / name).glob("*.safetensors")):
            kept |= {f"{name}/{tensor}": array for tensor, array in load_file(path).items()}
    save_file(kept, golden / "models.safetensors")
    (golden / "configurations.json").write_text(json.dumps(models.CONFIGURATIONS, indent=1) + "\n")


def _run(python: Path, module: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [str(python), "-m", f"benchmarks.oracle.{module}", str(folder)]
    if subprocess.run(command, env=environment, cwd=ROOT).returncode:
        sys.exit(f"mergekit failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
