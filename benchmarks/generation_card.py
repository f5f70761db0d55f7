"""Samples as the card draws them: one checkpoint's norms, each from noise alone, in the place of the norms."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.claims import Report
from benchmarks.generation_exact import SEEDS, distance, norms_of
from benchmarks.generation_setting import NORMS, Setting, loss_of
from core.draws import Draw
from core.errors import HuarizoError
from core.generators import training
from merging.generation.validity import check_perplexity, check_sample


def card(report: Report, setting: Setting) -> None:
    """Claim how many samples the gate lets pass, and how far they are from the base."""
    kept = setting.trained(setting.sources("base"), training("explore-llama"))
    base, norms = setting.loss(setting.recipe(), setting.hearsay), norms_of(setting.build(setting.recipe()))
    refused, ratios, away = [], [], []
    for seed in range(SEEDS):
        draw = Draw(generator=kept.digest, selectors=NORMS, mode="absolute", strength=1.0, eta=1.0, seed=seed)
        recipe = setting.resolved(setting.recipe(draw))
        built = setting.nursery.resident.build(recipe)
        ratio = float(np.exp(loss_of(built.model, setting.hearsay) - base))
        try:
            check_sample(recipe, built.tensors, setting.nursery.resident.parents)
            check_perplexity(1.0, partial(float, ratio))
        except HuarizoError as error:
            refused.append(error.code)
        ratios.append(ratio)
        away.append(distance(norms_of(built), norms) / distance(norms))
    report.claim(f"card: of {SEEDS} samples, those that are no numbers", float(np.isnan(ratios).sum()), "", 0, "lower")
    report.claim(f"card: of {SEEDS} samples, those that the gate refuses", len(refused), "")
    report.claim("card: perplexity over the base's, mean", float(np.mean(ratios)), "")
    report.claim("card: the highest of them", float(np.max(ratios)), "")
    report.claim("card: distance from the base", float(np.mean(away)), "")
    if refused:
        report.note(f"card: refused as {', '.join(sorted(set(refused)))}")
