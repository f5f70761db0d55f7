"""Generators of one checkpoint's norms and of its last block: what they rebuild and repeat, and how long they take."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from benchmarks.claims import Report
from benchmarks.generation_exact import distance, norms_of
from benchmarks.generation_setting import (
    NORMS,
    Kept,
    Setting,
    block_generator,
    loss_of,
    norms_generator,
    threads,
)
from core.draws import Draw
from core.generators import training
from core.recipe import Recipe

PERMUTATIONS = 4
CORES = 2


def rebuilt(setting: Setting, kept: Kept, *selectors: str) -> Recipe:
    """The base through the autoencoder, with no noise: what one-shot generation begins with."""
    return setting.recipe(Draw(generator=kept.digest, selectors=selectors, arm="posterior", tau=0.0, mode="absolute"))


def norms(report: Report, setting: Setting) -> None:
    """Claim what the norms' generator rebuilds, and that this model would notice if it did not."""
    kept = norms_generator(setting)
    base = setting.loss(setting.recipe(), setting.hearsay)
    told = [np.exp(loss - base) for loss in _permuted(setting)]
    report.claim("2: perplexity with permuted norms over the base's", statistics.mean(told), "", 1.3)
    built = setting.build(rebuilt(setting, kept, *NORMS))
    after, before = norms_of(built), norms_of(setting.build(setting.recipe()))
    report.claim("3: rebuilt norms, relative L2", distance(after, before) / distance(before), "", 0.03, "lower")
    ratio = np.exp(setting.loss(rebuilt(setting, kept, *NORMS), setting.hearsay) - base)
    report.claim("3: perplexity with rebuilt norms over the base's", float(ratio), "", 1.01, "lower")
    right, plain = (
        setting.nursery.margins(r, "heldout") > 0 for r in (rebuilt(setting, kept, *NORMS), setting.recipe())
    )
    drop = 100 * float(plain.mean() - right.mean())
    report.claim(f"3: accuracy lost with rebuilt norms, {plain.size} items", drop, "points", 0.5, "lower")
    _memory(report, kept)


def _permuted(setting: Setting) -> list[float]:
    """Losses of the base with the weights of every norm in another order."""
    found = []
    for seed in range(PERMUTATIONS):
        built, draws = setting.build(setting.recipe(), apart=True), torch.Generator().manual_seed(seed)
        kept = {name: p.data for name, p in built.model.named_parameters() if name.endswith("norm.weight")}
        for name, parameter in built.model.named_parameters():
            if name in kept:
                parameter.data = kept[name][torch.randperm(parameter.numel(), generator=draws)]
        found.append(loss_of(built.model, setting.hearsay))
    return found


def _memory(report: Report, kept: Kept) -> None:
    metrics = kept.opened().metrics
    told = metrics["memorisation"]
    report.claim("14: samples that the memorisation report looked at", told["samples"], "", 1)
    report.claim(
        "14: nearest source to a sample from noise, in spreads of the weights", told["nearest_source_distance"], ""
    )
    report.claim("14: samples from one another, likewise", told["median_sample_distance"], "")
    report.claim("14: numbers of the code in use", metrics["active_units"], "of 1")
    report.claim("14: noise of the code", metrics["posterior_std"], "")


def block(report: Report, setting: Setting) -> None:
    """Claim what the generator of a whole block rebuilds."""
    kept = block_generator(setting)
    metrics = kept.opened().metrics
    report.claim("4: last block, chunks that were trained on, relative L2", metrics["chunks_rel_l2"], "", 0.05, "lower")
    report.claim("4: the same of chunks never seen", metrics["held_out_chunks_rel_l2"], "")
    losses = [setting.loss(r, setting.hearsay) for r in (rebuilt(setting, kept, "block:-1"), setting.recipe())]
    report.claim("4: perplexity with the block rebuilt", float(np.exp(losses[0] - losses[1])), "", 1.02, "lower")


def seconds(report: Report, setting: Setting) -> None:
    """Claim how long a training takes."""
    begun = time.process_time()
    with threads(CORES):
        kept = setting.trained(setting.sources("base"), training(), anew=True)
    assert kept.seconds is not None
    report.claim("15: training a generator of the norms, 2 cores", kept.seconds, "s", 60.0, "lower")
    report.claim("15: the same, processor time", time.process_time() - begun, "s")
