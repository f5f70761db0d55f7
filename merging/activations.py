"""Activation statistics: how large what each column of a weight is multiplied by is on average.

Where a family holds a matrix as (inputs, outputs), its rows stand for the columns.

They come from a safetensors file that holds a vector for any of a model's weights, under its name.
"""

from __future__ import annotations

from pathlib import Path

import torch

from core.checkpoint import combine_digests, file_tensors, hashes
from core.errors import CheckpointError, MissingCheckpointError
from merging.plan import TensorPlan
from merging.sources import Parents


class Activations:
    """The vectors of one file, as tensors that parents can offer.

    Args:
        file: it.

    Raises:
        MissingCheckpointError: there is no such file.
        TruncatedCheckpointError, QuantisedCheckpointError: see `core.checkpoint.file_tensors`.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise MissingCheckpointError(f"activation statistics are a file, but {str(file)!r} is none: check the path")
        self._stored = {stored.info.name: stored for stored in file_tensors(file)}

    @property
    def digest(self) -> str:
        """Names the content, whatever the file's metadata and order."""
        return combine_digests(hashes(self._stored.values()))

    @property
    def names(self) -> frozenset[str]:
        """The weights that it has vectors for."""
        return frozenset(self._stored)

    def origin(self, name: str) -> None:
        """None: no vector is a parent's tensor."""

    def make(self, name: str, parents: Parents) -> torch.Tensor:
        """The vector of a weight; empty where nothing was measured."""
        stored = self._stored.get(name)
        return torch.empty(0, device=parents.device) if stored is None else parents.mapped(stored).to(parents.device)

    def making_bytes(self, name: str, parents: Parents) -> int:
        """None: a vector is read."""
        return 0


def activations_of(planned: TensorPlan, parents: Parents) -> torch.Tensor | None:
    """The activations of a planned tensor, (inputs,) float32; None where the recipe names none, or not for it.

    Raises:
        MissingCheckpointError: the statistics are not open.
        CheckpointError: there is not one number for every input, or a negative one.
        NonFiniteCheckpointError: a number is NaN or infinite.
    """
    leaf = planned.activations
    if leaf is None:
        return None
    try:
        found = parents.tensor(leaf.digest, leaf.name).flatten().float()
    except MissingCheckpointError as error:
        raise MissingCheckpointError(
            f"the recipe needs the activation statistics {leaf.digest!r}, but they are not open: give their file"
        ) from error
    inputs = planned.shape[0 if planned.inputs_first else -1] if planned.shape else 1
    lines = "rows" if planned.inputs_first else "columns"
    if found.numel() not in (0, inputs):
        raise CheckpointError(
            f"activation statistics must have a number per input, but tensor {leaf.name!r} has {inputs} {lines} and "
            f"{found.numel()!r} numbers: measure them on this model",
            where=leaf.name,
        )
    if found.numel() and float(found.min()) < 0.0:
        raise CheckpointError(
            f"activation statistics are mean magnitudes, but those of tensor {leaf.name!r} go down to "
            f"{float(found.min())!r}: measure absolute values",
            where=leaf.name,
        )
    return found if found.numel() else None
