"""A generator on disk: a folder of safetensors and JSON, named by the digest of all of it.

config.json            what it is and knows; digests of its sources; versions of the libraries
vae/  denoiser/        model.safetensors
scheduler/             scheduler_config.json, as diffusers reads it
latents.safetensors    the base's codes: `mu`, `log_variance`
kept.safetensors       `frozen/<tensor>` indices, `reference/<tensor>` means of the sources
metrics.json           what was measured of it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.errors import ConflictError, GeneratorError, MissingGeneratorError
from core.noun import digest_of
from merging.generation.autoencoder import Autoencoder
from merging.generation.config import GeneratorConfig
from merging.generation.denoiser import Denoiser
from merging.generation.generator import Generator
from merging.generation.schedules import SCHEDULE

CONFIG, METRICS, SCHEDULER = "config.json", "metrics.json", "scheduler/scheduler_config.json"
VAE, DENOISER = "vae/model.safetensors", "denoiser/model.safetensors"
LATENTS, KEPT = "latents.safetensors", "kept.safetensors"
FILES = (CONFIG, DENOISER, KEPT, LATENTS, METRICS, SCHEDULER, VAE)


def save(generator: Generator, folder: Path) -> str:
    """Write the folder, which appears complete or not at all; returns its digest.

    Raises:
        ConflictError: it exists.
    """
    if folder.exists():
        raise ConflictError(f"a generator makes its own folder, but {str(folder)!r} exists: choose another name")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(generator, partial)
        digest = digest_at(partial)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return digest


def load(folder: Path, device: torch.device | str = "cpu", *, digest: str | None = None) -> Generator:
    """A generator from its folder.

    Args:
        folder: as `save` wrote it.
        device: where its networks are wanted.
        digest: what its content must hash to.

    Raises:
        MissingGeneratorError: the folder, or a part of it, is absent.
        GeneratorError: another content than the digest says, or none that can be read.
    """
    found = digest_at(folder)
    if digest is not None and found != digest:
        raise GeneratorError(
            f"the generator {folder.name!r} must hash to {digest!r}, but it is {found!r}: fetch it again"
        )
    try:
        config = GeneratorConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
        autoencoder = _network(Autoencoder(config.sizes), folder / VAE, device)
        denoiser = _network(Denoiser(config.sizes), folder / DENOISER, device)
        kept = {name: tensor.to(device) for name, tensor in load_file(folder / KEPT).items()}
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        codes = load_file(folder / LATENTS)
    except (SafetensorError, ValidationError, ValueError, RuntimeError) as error:
        raise GeneratorError(
            f"the generator {folder.name!r} cannot be read ({error}): train or fetch it again"
        ) from error
    assert isinstance(autoencoder, Autoencoder)
    assert isinstance(denoiser, Denoiser)
    return Generator(config, autoencoder, denoiser, _under("frozen/", kept), _under("reference/", kept), codes, metrics)


def digest_at(folder: Path) -> str:
    """sha256 over the names and contents of a generator's files.

    Raises:
        MissingGeneratorError: one is absent.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise MissingGeneratorError(
            f"a generator has a file {missing[0]!r}, but {folder.name!r} has none: fetch it again"
        )
    return digest_of([[name, _hash(folder / name)] for name in FILES])


def _write(generator: Generator, folder: Path) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG, generator.config.model_dump(mode="json"))
    _write_json(folder / METRICS, generator.metrics)
    _write_json(folder / SCHEDULER, {"_class_name": "DDIMScheduler", **SCHEDULE})
    _write_tensors(folder / VAE, generator.autoencoder.state_dict())
    _write_tensors(folder / DENOISER, generator.denoiser.state_dict())
    _write_tensors(folder / LATENTS, generator.codes)
    kept = {f"frozen/{name}": tensor for name, tensor in generator.frozen.items()}
    kept |= {f"reference/{name}": tensor for name, tensor in generator.reference.items()}
    _write_tensors(folder / KEPT, kept)


def _network(network: nn.Module, file: Path, device: torch.device | str) -> nn.Module:
    network.load_state_dict(load_file(file))
    return network.requires_grad_(False).eval().to(device)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    # One key of metadata: several would be written in any order, and the file's hash with them.
    save_file({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, path, {"format": "pt"})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
