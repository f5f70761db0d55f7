"""The same few figures on a small real Llama: the folder that HUARIZO_BENCHMARK_LLAMA names, if it names one.

Its text is its own: continuations that it draws itself, on which a model unlike it does worse.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims import Report
from benchmarks.generation_exact import distance, norms_of
from benchmarks.generation_rivals import SEEDS, interval
from benchmarks.generation_setting import NORMS
from core.checkpoint import read_header, weights_digest
from core.draws import Arm, Draw
from core.generators import training
from core.model import Model
from core.recipe import identity, resolve
from merging.generation.artifact import save
from merging.generation.sources import model_source
from merging.generation.training import train
from merging.resident import Built, Resident
from merging.sources import Parents

#: Names the folder of a checkpoint.
FOLDER = "HUARIZO_BENCHMARK_LLAMA"
RADII = (0.01, 0.03, 0.1)
#: What is drawn: so many texts of so many tokens.
TEXTS, TOKENS = 16, 128


@dataclass
class Real:
    """A checkpoint with a generator of its norms.

    Attributes:
        model, resident: the checkpoint.
        generator: its digest.
        text: (texts, tokens) drawn from the model.
    """

    model: Model
    resident: Resident
    generator: str
    text: Tensor

    def build(self, draw: Draw | None = None) -> Built:
        """The model, or a sample around it, in float32."""
        recipe = identity("base", save_dtype="float32").evolve(generation=draw)
        return self.resident.build(resolve(recipe, {"base": self.model}))

    @torch.no_grad()
    def loss(self, draw: Draw | None = None) -> float:
        """Mean negative log-likelihood of the text, in nats per token."""
        return float(self.build(draw).model(self.text, labels=self.text).loss)

    def drawn(self, arm: Arm, seed: int, rho: float | None) -> Draw:
        """A sample."""
        return Draw(generator=self.generator, selectors=NORMS, arm=arm, seed=seed, rho=rho)


@contextmanager
def opened(folder: Path) -> Iterator[Real]:
    """The checkpoint of a folder, a generator trained on it, and its text."""
    digest = weights_digest(folder)
    model = Model(name="base", ref="local:base", weights_digest=digest, header=read_header(folder))
    with TemporaryDirectory() as place:
        kept = Path(place) / "generator"
        parents = Parents({digest: folder}, {digest: model.header})
        generator = save(train(model.header, [model_source(parents, digest)], training()), kept)
        resident = Resident(Parents({digest: folder}, {digest: model.header}, generators={generator: kept}))
        found = Real(model, resident, generator, torch.zeros((0, 0), dtype=torch.int64))
        found.text = _told(found.build().model)
        yield found


@torch.no_grad()
def _told(model: torch.nn.Module) -> Tensor:
    """Texts drawn from the model, token by token."""
    draws = torch.Generator().manual_seed(7)
    config = model.config
    start = config.bos_token_id if isinstance(config.bos_token_id, int) else 1
    tokens = torch.full((TEXTS, 1), start)
    for _ in range(TOKENS - 1):
        odds = model(tokens, use_cache=False).logits[:, -1].float().softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(odds, 1, generator=draws)], dim=1)
    return tokens


def real(report: Report) -> None:
    """Claim how samples of a real Llama's norms do, or list what is not known without one."""
    names = [f"real: rho {rho:g}: ln perplexity, sample less matched noise" for rho in RADII]
    folder = os.environ.get(FOLDER)
    if folder is None:
        for name in names:
            report.skip(name, None, f"no folder of a small Llama was given in {FOLDER}")
        return
    with opened(Path(folder)) as found:
        base = found.loss()
        before = norms_of(found.build())
        rebuilt = found.drawn("posterior", 0, None).evolve(tau=0.0, mode="absolute")
        after = norms_of(found.build(rebuilt))
        report.claim("real: rebuilt norms, relative L2", distance(after, before) / distance(before), "", 0.03, "lower")
        report.claim(
            "real: perplexity with rebuilt norms over the base's", float(np.exp(found.loss(rebuilt) - base)), ""
        )
        for name, rho in zip(names, RADII, strict=True):
            arms: tuple[Arm, Arm] = ("diffusion", "matched-noise")
            losses = [np.array([found.loss(found.drawn(arm, seed, rho)) for seed in range(SEEDS)]) for arm in arms]
            mean, low, high = interval(losses[0] - losses[1])
            report.claim(
                f"real: rho {rho:g}: ln perplexity over the base's, sample", float(losses[0].mean() - base), "nats"
            )
            report.claim(name, mean, "nats")
            report.claim(f"real: rho {rho:g}: the same, lower 95 % bound", low, "nats")
            report.claim(f"real: rho {rho:g}: the same, upper 95 % bound", high, "nats")
        report.note(f"real: {Path(folder).name}, {TEXTS} texts of {TOKENS} tokens that it drew itself")
