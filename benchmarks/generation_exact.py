"""What must hold of samples whatever they are worth: exactness, sizes, differences, determinism (items 1, 5-7, 13)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.claims import ROOT, Report
from benchmarks.generation_setting import NORMS, Kept, Setting, loss_of, norms_generator, threads
from core.draw_records import pack as packed
from core.draws import Draw
from merging.generation.chunks import pack, unpack
from merging.resident import Built, weights_digest

SEEDS = 16
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LENGTHS = (1, 7, 128, 1023, 1024, 1025, 5000)
RADII = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
STILL = ({"strength": 0.0}, {"blend": 0.0}, {"rho": 0.0}, {"amounts": (0.0, 0.0)}, {"coefficients": (0.0,)})


def exact(report: Report, setting: Setting) -> None:
    """Claim what has to be exact, and how far samples are from the base and from one another."""
    kept = norms_generator(setting)
    report.claim("1: tensors that packing into chunks and back changes", _changed_by_packing(), "", 0, "lower")
    report.claim("1: draws of no effect that are not the base", _not_still(setting, kept), "", 0, "lower")
    _seeds(report, setting, kept)
    _defaults(report, setting, kept)
    _radii(report, setting, kept)
    report.claim("13: records that gave another digest", _unlike(setting, kept), "", 0, "lower")


def _changed_by_packing() -> int:
    draws, wrong = torch.Generator().manual_seed(1), 0
    for dtype, length, size in product(DTYPES, LENGTHS, (8, 1024)):
        values = torch.empty(length).normal_(generator=draws).to(dtype)
        wrong += not torch.equal(unpack(pack(values, size), length), values)
    return wrong


def _not_still(setting: Setting, kept: Kept) -> int:
    """Draws that change nothing: they have the base's recipe digest and its weights."""
    plain, base = setting.resolved(setting.recipe()).digest(), weights_digest(setting.build(setting.recipe()))
    wrong = 0
    for still in STILL:
        recipe = setting.recipe(Draw(generator=kept.digest, selectors=NORMS, **still))
        wrong += setting.resolved(recipe).digest() != plain or weights_digest(setting.build(recipe)) != base
    return wrong


def norms_of(built: Built) -> dict[str, Tensor]:
    """The norms of a candidate, in memory of their own."""
    return {name: tensor.clone() for name, tensor in built.tensors.items() if name.endswith("norm.weight")}


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor] | None = None) -> float:
    """|one - other| over all tensors, or |one|."""
    if other is None:
        return float(sum(float(tensor.double().square().sum()) for tensor in one.values()) ** 0.5)
    return float(sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5)


def _seeds(report: Report, setting: Setting, kept: Kept) -> None:
    base = norms_of(setting.build(setting.recipe(dtype="bfloat16")))
    samples, digests = [], set()
    for seed in range(SEEDS):
        draw = Draw(generator=kept.digest, selectors=NORMS, seed=seed, rho=0.02)
        built = setting.build(setting.recipe(draw, dtype="bfloat16"))
        samples.append(norms_of(built))
        digests.add(weights_digest(built))
    report.claim(f"5: digests of {SEEDS} seeds after the cast to bfloat16, rho 0.02", len(digests), "", SEEDS)
    total = sum(tensor.numel() for tensor in base.values())
    changed = [sum(int((sample[name] != base[name]).sum()) for name in base) / total for sample in samples]
    report.claim("5: least share of sampled elements that changed", min(changed), "of 1", 0.5)
    apart = np.mean([distance(one, other) for k, one in enumerate(samples) for other in samples[:k]])
    away = np.mean([distance(sample, base) for sample in samples])
    report.claim("5: distance between samples over distance to the base", float(apart / away), "", 0.7)


def _defaults(report: Report, setting: Setting, kept: Kept) -> None:
    """Default knobs: strength, no radius."""
    base = setting.loss(setting.recipe(), setting.hearsay)
    draws = [Draw(generator=kept.digest, selectors=NORMS, seed=seed) for seed in range(SEEDS)]
    ratios = np.exp([setting.loss(setting.recipe(draw), setting.hearsay) - base for draw in draws])
    report.claim("6: perplexity over the base's, mean of 16 seeds", float(ratios.mean()), "", 1.02, "lower")
    report.claim("6: the highest of them", float(ratios.max()), "", 1.10, "lower")
    report.claim("6: samples with NaN", float(np.isnan(ratios).sum()), "", 0, "lower")


def _radii(report: Report, setting: Setting, kept: Kept) -> None:
    base = norms_of(setting.build(setting.recipe()))
    found, worst = [], 0.0
    for rho, seed in product(RADII, range(3)):
        for arm in ("diffusion", "posterior", "matched-noise"):
            draw = Draw(generator=kept.digest, selectors=NORMS, arm=arm, seed=seed, rho=rho)  # type: ignore[arg-type]
            built = setting.build(setting.recipe(draw))
            sample = norms_of(built)
            for name, tensor in base.items():
                got = float((sample[name].double() - tensor.double()).norm() / tensor.double().norm())
                worst = max(worst, abs(got / rho - 1))
            if arm == "diffusion":
                found.append((rho, loss_of(built.model, setting.hearsay)))
    report.claim("7: radius asked for against radius obtained, worst tensor", 100 * worst, "%", 2.0, "lower")
    rank = float(spearmanr(*zip(*found, strict=True)).statistic)
    report.claim("7: rank correlation of radius and perplexity over [0.01, 0.5]", rank, "", 0.8)


def _unlike(setting: Setting, kept: Kept) -> int:
    """Records whose digest differs: built again after others, in fresh processes, and beside layers switched off."""
    plain = Draw(generator=kept.digest, selectors=NORMS, seed=2**40 + 1, rho=0.03)
    draws = [plain, plain.evolve(rho=None, eta=1.0, guidance=2.0, coefficients=(0.7, -0.4)),
             plain.evolve(arm="posterior", tau=1.5), plain.evolve(arm="matched-noise", rho=None)]  # fmt: skip
    first = [weights_digest(setting.build(setting.recipe(draw))) for draw in draws]
    again = [weights_digest(setting.build(setting.recipe(draw))) for draw in reversed(draws)][::-1]
    with threads(2):
        more = [weights_digest(setting.build(setting.recipe(draw))) for draw in draws]
    fresh = [told(setting, kept, draws, threads=count, seed=seed) for count, seed in ((1, 1), (2, 77))]
    wrong = sum(one != other for found in (again, more, *fresh) for one, other in zip(first, found, strict=True))
    return wrong + _moved_by_others(setting, plain)


def _moved_by_others(setting: Setting, plain: Draw) -> int:
    """Norms of layers that are sampled, which change once others are not; and of those others, which do not stay."""
    depth = setting.nursery.models["base"].header.layers
    amounts = tuple(float(layer % 2) for layer in range(depth))
    whole, some = (norms_of(setting.build(setting.recipe(draw))) for draw in (plain, plain.evolve(amounts=amounts)))
    base, wrong = norms_of(setting.build(setting.recipe())), 0
    for name in whole:
        layer = int(name.split(".")[2]) if ".layers." in name else depth - 1
        wrong += not torch.equal(some[name], whole[name] if amounts[layer] else base[name])
    return wrong


def told(setting: Setting, kept: Kept, draws: list[Draw], *, threads: int, seed: int) -> list[str]:
    """Weights digests of samples around the base that a process of its own makes of their records."""
    base = setting.nursery.models["base"].weights_digest
    records = [packed(draw, base).hex() for draw in draws]
    itself = [sys.executable, "-m", "benchmarks.generation_exact"]
    done = subprocess.run(
        [*itself, str(setting.family), str(kept.folder), str(threads), *records],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "HUARIZO_BENCHMARK_NURSERIES": str(setting.folder.parent)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def _answer(family: str, folder: str, count: str, *records: str) -> None:
    from core.draw_records import unpack as unpacked

    torch.set_num_threads(int(count))
    setting, found = Setting(int(family)), []
    for record in records:
        draw, _ = unpacked(bytes.fromhex(record))
        setting.generators[draw.generator] = Path(folder)
        found.append(weights_digest(setting.build(setting.recipe(draw))))
    print(json.dumps(found))


if __name__ == "__main__":
    _answer(*sys.argv[1:])
