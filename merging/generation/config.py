"""What a generator says of itself: `config.json` of its artifact."""

from __future__ import annotations

from typing import Literal

from core.generators import Training
from core.noun import Noun
from merging.generation.networks import Sizes


class TensorEntry(Noun):
    """A tensor that the generator knows.

    Attributes:
        name, kind, layer, shape: as in the model; `kind` is a position among the config's kinds, `layer` -1 outside
            the stack.
        numel: values that describe it (the rows of a matrix under `gain`).
        centre, spread: of its normalisation.
    """

    name: str
    kind: int
    layer: int
    shape: tuple[int, ...]
    numel: int
    centre: float
    spread: float


class GeneratorConfig(Noun):
    """Everything about a generator but its numbers.

    Attributes:
        model_type, layers: of the models it fits.
        base: digest of the source it was trained around: its first one.
        sources: digests of all of them, weights digests of models and recipe digests of candidates.
        lineage: weights digests of every model that they are made of; candidates of these alone are its bases.
        scored: whether sources came with scores, so that the best decile can be asked for.
        settings: how it was trained.
        kinds: what tensors are called within a layer, or in full outside the stack.
        tensors: all it knows, by name.
        chunk, latent: numbers of a chunk and of its code.
        quiet: factor on the noise that training adds to codes and chunks; see `merging.generation.training.quietness`.
        code_std: standard deviation of the codes as they are sampled; the denoiser works on codes divided by it.
        rows: chunks of one batch, which is always full: so a sample does not depend on what is sampled beside it.
        versions: of the libraries it was trained with.
    """

    format: Literal[1] = 1
    model_type: str
    layers: int
    base: str
    sources: tuple[str, ...]
    lineage: tuple[str, ...]
    scored: bool
    settings: Training
    kinds: tuple[str, ...]
    tensors: tuple[TensorEntry, ...]
    chunk: int
    latent: int
    quiet: float = 1.0
    code_std: float = 1.0
    rows: int
    versions: dict[str, str]

    @property
    def sizes(self) -> Sizes:
        """Of its networks."""
        settings = self.settings
        return Sizes(
            chunk=self.chunk,
            latent=self.latent,
            width=settings.width,
            blocks=settings.blocks,
            kinds=len(self.kinds),
            layers=self.layers + 1,
            posterior_std=settings.posterior_std * self.quiet,
            fixed_std=settings.fixed_std,
        )
