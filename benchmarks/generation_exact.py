"""What must hold of samples whatever they are worth: exactness, sizes, differences, determinism (items 1, 5-7, 13)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.claims import ROOT, Report
from benchmarks.generation_setting import (
    NORMS,
    Kept,
    Setting,
    block_generator,
    everything,
    loss_of,
    norms_generator,
    parents_generator,
    threads,
)
from core.draw_records import pack as packed
from core.draw_records import unpack as unpacked
from core.draws import LEAST_RADIUS, Draw
from core.errors import RadiusLostError
from core.recipe import Recipe
from core.space import SearchSpace
from core.space_spec import GenerationFamily, SpaceSpec
from merging.generation.artifact import load
from merging.generation.chunks import pack, unpack
from merging.resident import Built, weights_digest

SEEDS = 16
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LENGTHS = (1, 7, 128, 1023, 1024, 1025, 5000)
RADII = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
#: Radii in bfloat16, the third of them the least that it is searched at.
COARSE = (0.002, 0.004, 2**-7, 0.016)
STILL = ({"strength": 0.0}, {"blend": 0.0}, {"rho": 0.0}, {"amounts": (0.0, 0.0)}, {"coefficients": (0.0,)})


def exact(report: Report, setting: Setting) -> None:
    """Claim what has to be exact, and how far samples are from the base and from one another."""
    kept = norms_generator(setting)
    report.claim("1: tensors that packing into chunks and back changes", _changed_by_packing(), "", 0, "lower")
    report.claim("1: draws of no effect that are not the base", _not_still(setting, kept), "", 0, "lower")
    _seeds(report, setting, kept)
    _defaults(report, setting, kept)
    _radii(report, setting, kept)
    _rounded(report, setting, kept)


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


def _rounded(report: Report, setting: Setting, kept: Kept) -> None:
    """What is left of a radius after the cast to bfloat16, and that searches refuse those of which little is."""
    base = norms_of(setting.build(setting.recipe(dtype="bfloat16")))
    size, total = distance(base), sum(tensor.numel() for tensor in base.values())
    for rho in COARSE:
        shares, radii = [], []
        for seed in range(SEEDS):
            draw = Draw(generator=kept.digest, selectors=NORMS, seed=seed, rho=rho)
            sample = norms_of(setting.build(setting.recipe(draw, dtype="bfloat16")))
            shares.append(sum(int((sample[name] != base[name]).sum()) for name in base) / total)
            radii.append(distance(sample, base) / size)
        off = 100 * abs(float(np.mean(radii)) / rho - 1)
        report.claim(f"7: bfloat16, radius {rho:.2g}: share of elements that changed", float(np.mean(shares)), "of 1")
        report.claim(f"7: bfloat16, radius {rho:.2g}: radius obtained is off by", off, "%")
    lost = [rho for rho in COARSE if rho < LEAST_RADIUS["bfloat16"]]
    refused = sum(_refused(kept, rho) for rho in lost)
    report.claim("7: radii below 2^-7 that a search in bfloat16 takes", len(lost) - refused, "", 0, "lower")


def _refused(kept: Kept, rho: float) -> bool:
    family = GenerationFamily(generator=kept.digest, params={"rho": rho})
    try:
        SearchSpace(SpaceSpec(families=(family,)), ["base"], depth=1, save_dtype="bfloat16")
    except RadiusLostError:
        return True
    return False


@dataclass(frozen=True)
class Case:
    """Records that must give the same digest wherever and whenever they are built.

    Attributes:
        about: which.
        folder, digest: of the generator.
        selectors: what is sampled.
        merged: whether around the specialists' merge, and not around the base.
        draws: of the generator.
    """

    about: str
    folder: Path
    digest: str
    selectors: tuple[str, ...]
    merged: bool
    draws: tuple[Draw, ...]

    def around(self, setting: Setting) -> Recipe:
        """What is sampled around."""
        return setting.merged() if self.merged else setting.recipe()

    def digests(self, setting: Setting, *, backwards: bool = False) -> list[str]:
        """Weights digests of all samples, built in order or from the last on; told in order."""
        step, around = -1 if backwards else 1, self.around(setting)
        recipes = [setting.recipe(draw, around=around) for draw in self.draws[::step]]
        return [weights_digest(setting.build(recipe)) for recipe in recipes][::step]


def cases(setting: Setting, *, quick: bool) -> list[Case]:
    """Norms around the base; and, where there is time, whole blocks, and row norms of everything around a merge."""
    alone = norms_generator(setting)
    plain = Draw(generator=alone.digest, selectors=NORMS, seed=2**40 + 1, rho=0.03)
    draws = (
        plain,
        plain.evolve(rho=None, eta=1.0, guidance=2.0, coefficients=(0.7, -0.4)),
        plain.evolve(arm="posterior", tau=1.5),
        plain.evolve(arm="matched-noise", rho=None),
    )
    found = [Case("norms around the base", alone.folder, alone.digest, NORMS, False, draws)]
    if not quick:
        whole, fed = block_generator(setting), parents_generator(setting)
        for about, kept, selectors, merged in (
            ("all values of a block around the base", whole, ("block:-1",), False),
            ("norms and row norms around a merge", fed, everything(setting), True),
        ):
            draw = plain.evolve(generator=kept.digest, selectors=selectors)
            own = (draw, draw.evolve(arm="posterior"), draw.evolve(arm="matched-noise"))
            found.append(Case(about, kept.folder, kept.digest, selectors, merged, own))
    return found


def determinism(report: Report, setting: Setting) -> None:
    """Claim that a record gives one digest: again, on more cores, in other processes, with layers off (item 13)."""
    wanted = cases(setting, quick=report.quick)
    fresh = [told(setting, wanted, threads=count, seed=seed) for count, seed in ((1, 1), (2, 77))]
    for place, case in enumerate(wanted):
        first, again = case.digests(setting), case.digests(setting, backwards=True)
        with threads(2):
            more = case.digests(setting)
        others = (again, more, *(found[place] for found in fresh))
        wrong = sum(one != other for found in others for one, other in zip(first, found, strict=True))
        report.claim(f"13: {case.about}: records that gave another digest", wrong, "", 0, "lower")
        moved = _moved_by_others(setting, case)
        report.claim(f"13: {case.about}: tensors that other layers moved", moved, "", 0, "lower")


def _moved_by_others(setting: Setting, case: Case) -> int:
    """Tensors of layers that are sampled, which change once others are not; and of those others, which do not stay."""
    depth, around = setting.nursery.models["base"].header.layers, case.around(setting)
    amounts = tuple(float(layer % 2) for layer in range(depth))
    entries = load(case.folder, digest=case.digest).entries

    def built(draw: Draw | None) -> dict[str, Tensor]:
        tensors = setting.build(setting.recipe(draw, around=around)).tensors
        return {name: tensors[name].clone() for name in entries}

    base, whole, some = (built(draw) for draw in (None, case.draws[0], case.draws[0].evolve(amounts=amounts)))
    wrong = 0
    for name, entry in entries.items():
        layer = depth - 1 if entry.layer < 0 else entry.layer
        wrong += not torch.equal(some[name], whole[name] if amounts[layer] else base[name])
    return wrong


def told(setting: Setting, wanted: Sequence[Case], *, threads: int, seed: int) -> list[list[str]]:
    """Weights digests of the samples of each case, made by a process of its own of their records."""
    asked = []
    for case in wanted:
        base = setting.resolved(case.around(setting)).digest()
        records = [packed(draw, base).hex() for draw in case.draws]
        asked.append([str(case.folder), case.merged, list(case.selectors), records])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.generation_exact", str(setting.family), str(threads), json.dumps(asked)],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "HUARIZO_BENCHMARK_NURSERIES": str(setting.folder.parent)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def _answer(family: str, count: str, asked: str) -> None:
    torch.set_num_threads(int(count))
    setting, found = Setting(int(family)), []
    for folder, merged, selectors, records in json.loads(asked):
        draws = tuple(unpacked(bytes.fromhex(record))[0] for record in records)
        digest = draws[0].generator
        setting.generators[digest] = Path(folder)
        found.append(Case("", Path(folder), digest, tuple(selectors), merged, draws).digests(setting))
    print(json.dumps(found))


if __name__ == "__main__":
    _answer(*sys.argv[1:])
