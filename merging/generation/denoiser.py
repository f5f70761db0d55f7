"""The denoiser of codes: a residual MLP whose blocks are modulated by time and by what the chunk is (adaLN).

A chunk is one token: neighbouring weights are no pixels, so there is no convolution.
"""

from __future__ import annotations

from torch import Tensor, nn

from merging.generation.networks import DECILES, SOURCES, Labels, Modulated, Sizes, waves


class Denoiser(nn.Module):
    """Predicts v = sqrt(abar) eps - sqrt(1 - abar) z, as diffusers' schedulers define it.

    Args:
        sizes: of everything.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.kind = nn.Embedding(sizes.kinds, width)
        self.layer = nn.Embedding(sizes.layers, width)
        self.source = nn.Embedding(SOURCES, width)
        self.decile = nn.Embedding(DECILES, width)
        self.place = nn.Linear(width, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(sizes.latent, width)
        self.blocks = nn.ModuleList(Modulated(width) for _ in range(sizes.blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sizes.latent)

    def forward(self, codes: Tensor, times: Tensor, labels: Labels) -> Tensor:
        """v of every code: (n, latent) at times (n,) to (n, latent)."""
        width = self.enter.out_features
        what = self.kind(labels.kind) + self.layer(labels.layer) + self.place(waves(labels.number, width))
        what = what + self.source(labels.source) + self.decile(labels.decile)
        condition = self.time(waves(times, width)) + what * labels.told
        hidden = self.enter(codes)
        for block in self.blocks:
            hidden = block(hidden, condition)
        v: Tensor = self.out(self.norm(hidden))
        return v
