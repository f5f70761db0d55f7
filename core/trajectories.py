"""Snapshots of a fine-tune as models of a job: those that a folder holds, or those that are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from core.adapters import is_adapter
from core.errors import InvalidInputError, MissingCheckpointError
from core.jobs import LOCAL_REF, MAX_MODELS, GeneratorJob, ModelRef, Trajectory

#: What transformers' Trainer calls the folder of a snapshot.
CHECKPOINT = re.compile(r"^checkpoint-(0|[1-9][0-9]{0,11})\Z")


def with_snapshots(job: GeneratorJob, folder_of: Callable[[str], Path]) -> GeneratorJob:
    """The training with the snapshots of its trajectory among its models, the latest last.

    Those that are there already stay as they are, so that a request that was posted once may be posted again.

    Args:
        job: the training.
        folder_of: the folder that a `local:` reference means.

    Raises:
        PathNotAllowedError, MissingCheckpointError: the folder cannot be had, or holds no snapshot.
        InvalidInputError: more models than a job may have.
    """
    if job.trajectory is None:
        return job
    known = {model.ref for model in job.models}
    found = [model for model in _snapshots(job, job.trajectory, folder_of) if model.ref not in known]
    if len(job.models) + len(found) > MAX_MODELS:
        raise InvalidInputError(
            f"a job has {MAX_MODELS} models at most, but with {len(found)} snapshots it has "
            f"{len(job.models) + len(found)}: lower `last`",
            where="trajectory.last",
        )
    return job.evolve(models=(*job.models, *found))


def _snapshots(job: GeneratorJob, trajectory: Trajectory, folder_of: Callable[[str], Path]) -> list[ModelRef]:
    if trajectory.folder is None:
        named = [
            (f"snapshot-{place}", ref, bool(LOCAL_REF.match(ref)) and is_adapter(folder_of(ref)))
            for place, ref in enumerate(trajectory.snapshots, 1)
        ]
    else:
        root, stem = folder_of(trajectory.folder), trajectory.folder.rstrip("/")
        named = [(name, f"{stem}/{name}", is_adapter(root / name)) for name in saved(root)]
    if not named:
        raise MissingCheckpointError(
            f"{trajectory.folder!r} holds no folder checkpoint-<step> with safetensors: name the folder that a Trainer "
            "saved to, or give `snapshots`",
            where="trajectory.folder",
        )
    base = job.models[0].name
    return [
        ModelRef(name=name, ref=ref, base=base if adapter else None) for name, ref, adapter in named[-trajectory.last :]
    ]


def saved(folder: Path) -> list[str]:
    """Names of the snapshots of a folder that hold weights, by their steps; one that is still being written is none."""
    if not folder.is_dir():
        return []
    matches = [(found, each) for each in folder.iterdir() if (found := CHECKPOINT.match(each.name))]
    steps = {int(found[1]): each.name for found, each in matches if any(each.glob("*.safetensors"))}
    return [steps[step] for step in sorted(steps)]
