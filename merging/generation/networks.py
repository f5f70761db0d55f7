"""Parts of both networks: embeddings of what a chunk is, pre-norm blocks under a condition, and how weights begin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.generators import MOST_SOURCES

#: Wavelengths of positions and times run up to this.
LONGEST = 10_000.0
#: Sizes of the embedding tables of sources and of score deciles; 0 of both is `not told`.
SOURCES, DECILES = MOST_SOURCES + 1, 11


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the networks are built by; a generator's config holds them.

    Attributes:
        chunk, latent, width, blocks: as in `core.generators.Training`.
        kinds, layers: how many of them there are; layer 0 is what stands outside the stack.
        posterior_std, fixed_std: of the autoencoder's code.
    """

    chunk: int
    latent: int
    width: int
    blocks: int
    kinds: int
    layers: int
    posterior_std: float
    fixed_std: bool

    @property
    def lossless(self) -> bool:
        """Whether a code has a number for each of the chunk's, so that both networks begin as the identity."""
        return self.latent == self.chunk


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of each chunk of a batch: int64, (n,) each.

    Attributes:
        kind, layer: positions in the embedding tables.
        number: of the chunk within its tensor.
        source, decile: who it came from and how well that scored; 0 where that is not told.
        told: float32, (n, 1); 0 where the whole condition is held back.
    """

    kind: Tensor
    layer: Tensor
    number: Tensor
    source: Tensor
    decile: Tensor
    told: Tensor

    def take(self, rows: Tensor) -> Labels:
        """Some rows."""
        return Labels(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> Labels:
        """The same on a device."""
        return Labels(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class Modulated(nn.Module):
    """h + gate · MLP(norm(h) · (1 + scale) + shift), with scale, shift and gate read off the condition.

    All three begin at zero, so a block begins as the identity.

    Args:
        width: of h and of the condition.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.condition = nn.Linear(width, 3 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(n, width) of both."""
        scale, shift, gate = self.condition(nn.functional.silu(condition)).chunk(3, dim=-1)
        inner = self.norm(hidden) * (1.0 + scale) + shift
        result: Tensor = hidden + gate * self.second(nn.functional.silu(self.first(inner)))
        return result


class Film(nn.Module):
    """h + MLP(norm(h) · (1 + scale) + shift): a pre-norm SiLU block under FiLM.

    Args:
        width: of h and of the condition.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.condition = nn.Linear(width, 2 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """(n, width) of both."""
        scale, shift = self.condition(condition).chunk(2, dim=-1)
        inner = self.norm(hidden) * (1.0 + scale) + shift
        result: Tensor = hidden + self.second(nn.functional.silu(self.first(inner)))
        return result


def waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions: (n,) to (n, width), width even."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=places.device) * (-math.log(LONGEST) / half))
    angles = places.float().unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@torch.no_grad()
def begin(network: nn.Module, seed: int) -> None:
    """Draw all weights anew, from nothing but the seed: on the host, module by module.

    Matrices get N(0, 1 / inputs), tables N(0, 1 / 4), norms one and biases zero; `condition` and `out` layers zero.
    """
    draws = torch.Generator().manual_seed(seed)
    for name, module in network.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Linear):
            spread = 0.0 if last in ("condition", "out") else module.in_features**-0.5
            _draw(module.weight, spread, draws)
            module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            _draw(module.weight, 0.5, draws)
        elif isinstance(module, nn.LayerNorm) and module.weight is not None:
            module.weight.fill_(1.0)
            module.bias.zero_()


def _draw(weight: Tensor, spread: float, draws: torch.Generator) -> None:
    weight.copy_(torch.empty(weight.shape).normal_(generator=draws).mul_(spread))
