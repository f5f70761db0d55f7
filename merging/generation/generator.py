"""A trained generator: its networks, what it keeps of its sources, and whether it fits a base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from core.errors import GeneratorMisfitError
from merging.generation.autoencoder import Autoencoder
from merging.generation.config import GeneratorConfig, TensorEntry
from merging.generation.denoiser import Denoiser
from merging.generation.scaling import Scaling


class Generator:
    """What `merging.generation.training.train` makes and `merging.generation.artifact` keeps.

    Args:
        config: all but its numbers.
        autoencoder, denoiser: without gradients, on one device.
        frozen: int32 indices of the values that stay, by tensor.
        reference: the mean of the sources' values, by tensor; empty where there was one source.
        codes: mu and log variance of the base's chunks.
        metrics: what was measured of it.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        autoencoder: Autoencoder,
        denoiser: Denoiser,
        frozen: Mapping[str, Tensor],
        reference: Mapping[str, Tensor],
        codes: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.autoencoder, self.denoiser = config, autoencoder, denoiser
        self.frozen, self.reference = dict(frozen), dict(reference)
        self.codes, self.metrics = dict(codes or {}), dict(metrics or {})

    def evolve(self, *, codes: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> Generator:
        """The same generator with what was found out about it."""
        parts = (self.config, self.autoencoder, self.denoiser, self.frozen, self.reference)
        return Generator(*parts, codes, metrics)

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        return next(self.autoencoder.parameters()).device

    @cached_property
    def entries(self) -> dict[str, TensorEntry]:
        """What it knows, by tensor name."""
        return {entry.name: entry for entry in self.config.tensors}

    def scaling(self, name: str) -> Scaling:
        """How a tensor was normalised."""
        entry = self.entries[name]
        return Scaling(entry.centre, entry.spread)

    def check_base(self, models: Iterable[str]) -> None:
        """Check that it was trained around a base.

        Args:
            models: weights digests of all that the base is made of.

        Raises:
            GeneratorMisfitError: one of them it has never seen.
        """
        foreign = [digest for digest in models if digest not in self.config.lineage]
        if foreign:
            raise GeneratorMisfitError(
                f"a generator samples around the models it was trained on, but the model with weights {foreign[0]!r} "
                f"is none of {list(self.config.lineage)!r}: take one of these as the base, or train it anew",
                where="generator",
            )

    def check_tensor(self, name: str, shape: Iterable[int]) -> TensorEntry:
        """The entry of a tensor.

        Raises:
            GeneratorMisfitError: it does not know the tensor, or in another shape.
        """
        entry = self.entries.get(name)
        if entry is None or entry.shape != tuple(shape):
            known = "does not know it" if entry is None else f"knows it as {list(entry.shape)!r}"
            raise GeneratorMisfitError(
                f"tensor {name!r} of shape {list(shape)!r} is to be sampled, but the generator {known}: select other "
                f"tensors, or train it with selectors beyond {list(self.config.settings.selectors)!r}",
                where=name,
            )
        return entry
