"""The autoencoder of chunks: a code z per chunk, with noise of a stated size.

    encoder   x -> h -> Film blocks -> (mu, log variance)        decoder   z -> h -> Film blocks -> x

Where the code has as many numbers as the chunk, mu = x + f(x) and D(z) = z + g(z) with f and g beginning at zero:
the reconstruction is exact before the first step, and training only shapes the noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from core.generators import Training
from merging.generation.networks import Film, Labels, Sizes

#: Film blocks of either half.
BLOCKS = 2
#: Log variances beyond this are noise without a code.
MOST = 2.0


class Autoencoder(nn.Module):
    """Encoder and decoder under FiLM on kind and layer.

    Args:
        sizes: of everything.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.kind = nn.Embedding(sizes.kinds, width)
        self.layer = nn.Embedding(sizes.layers, width)
        self.enter = nn.Linear(sizes.chunk, width)
        self.down = nn.ModuleList(Film(width) for _ in range(BLOCKS))
        self.mu = nn.ModuleDict({"out" if sizes.lossless else "plain": nn.Linear(width, sizes.latent)})
        self.variance = nn.ModuleDict({"out": nn.Linear(width, sizes.latent)})
        self.leave = nn.Linear(sizes.latent, width)
        self.up = nn.ModuleList(Film(width) for _ in range(BLOCKS))
        self.back = nn.ModuleDict({"out" if sizes.lossless else "plain": nn.Linear(width, sizes.chunk)})

    def encode(self, chunks: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """mu and the standard deviation of the code: (n, chunk) to (n, latent) twice."""
        condition = self._condition(labels)
        hidden = self.enter(chunks)
        for block in self.down:
            hidden = block(hidden, condition)
        mu = _only(self.mu)(hidden)
        if self.sizes.lossless:
            mu = mu + chunks
        floor = math.log(self.sizes.posterior_std)
        if self.sizes.fixed_std:
            return mu, torch.full_like(mu, self.sizes.posterior_std)
        # Begins a little above the floor, below which there is no slope to climb back.
        log_std = 0.5 * _only(self.variance)(hidden) + floor + 0.1
        return mu, log_std.clamp(floor, 0.5 * MOST).exp()

    def decode(self, codes: Tensor, labels: Labels) -> Tensor:
        """(n, latent) to (n, chunk)."""
        condition = self._condition(labels)
        hidden = self.leave(codes)
        for block in self.up:
            hidden = block(hidden, condition)
        chunks: Tensor = _only(self.back)(hidden)
        return chunks + codes if self.sizes.lossless else chunks

    def _condition(self, labels: Labels) -> Tensor:
        found: Tensor = self.kind(labels.kind) + self.layer(labels.layer)
        return found


def divergence(mu: Tensor, std: Tensor) -> Tensor:
    """KL(N(mu, std²) || N(0, 1)) of every number of a code, in nats; any shape."""
    return 0.5 * (mu.square() + std.square() - 1.0) - std.log()


def loss_of(
    network: Autoencoder, chunks: Tensor, mask: Tensor, labels: Labels, noise: tuple[Tensor, Tensor], settings: Training
) -> Tensor:
    """Huber(D(z) - x) over what the mask shows, plus the divergence beyond its free bits.

    Args:
        network: the autoencoder.
        chunks, mask: (n, chunk).
        labels: of the chunks.
        noise: N(0, 1) of the chunks' and of the codes' shape.
        settings: the weights of the parts.
    """
    seen = (chunks + settings.augment * noise[0]) * mask
    mu, std = network.encode(seen, labels)
    error = nn.functional.huber_loss(network.decode(mu + std * noise[1], labels), chunks, reduction="none")
    counted = mask if network.sizes.lossless else torch.ones_like(mu)
    excess = (divergence(mu, std) * counted).sum(0) / counted.sum(0).clamp_min(1.0)
    shown = (counted.sum(0) > 0).float()
    bits = (excess.clamp_min(settings.free_bits) * shown).sum() / shown.sum().clamp_min(1.0)
    return (error * mask).sum() / mask.sum() + settings.beta * bits


def _only(held: nn.ModuleDict) -> nn.Module:
    (module,) = held.values()
    assert isinstance(module, nn.Module)
    return module
