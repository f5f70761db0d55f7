"""Generators at hand, by digest: each is opened when a candidate first asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.errors import MissingGeneratorError

if TYPE_CHECKING:
    from merging.generation.generator import Generator
    from merging.plan import Sampled

#: Bytes per element that sampling a tensor takes besides the tensor: values, codes' batches, change and noise.
SAMPLING_BYTES = 40


class Generators:
    """The artifacts that candidates may sample from.

    Args:
        folders: where each lies, by digest.
        device: where they are wanted.
    """

    def __init__(self, folders: Mapping[str, Path], device: torch.device) -> None:
        self.folders, self._device = folders, device
        self._opened: dict[str, Generator] = {}

    def of(self, digest: str) -> Generator:
        """The generator of a digest.

        Raises:
            MissingGeneratorError: none of that digest is at hand, or a part of it is absent.
            GeneratorError: it cannot be read, or is not what the digest says.
        """
        if digest not in self.folders:
            raise MissingGeneratorError(
                f"the recipe samples from the generator {digest!r}, but it is not at hand: give its folder",
                where="generator",
            )
        if digest not in self._opened:
            # diffusers takes seconds to import, and most candidates sample nothing.
            from merging.generation.artifact import load

            self._opened[digest] = load(self.folders[digest], self._device, digest=digest)
        return self._opened[digest]


def around(sample: Sampled, weight: Tensor, generators: Generators) -> Tensor:
    """A tensor with a sample around it: float32.

    Args:
        sample: of its plan.
        weight: W0, float32, on the generators' device.
        generators: at hand.

    Raises:
        GeneratorMisfitError: the generator was not trained for this base, or not for this tensor.
        MissingGeneratorError, GeneratorError: see `Generators.of`.
    """
    from merging.generation.sampling import sampled

    generator = generators.of(sample.draw.generator)
    generator.check_base(sample.models)
    return sampled(generator, weight, sample.tensor, sample.draw, sample.amount)
