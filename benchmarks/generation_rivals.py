"""Samples beside what costs nothing: noise of the same size (item 8), and whatever else is made of parents (9, 9b)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from benchmarks.claims import Report
from benchmarks.generation_setting import NORMS, Kept, Setting, loss_of, norms_generator
from benchmarks.search_nursery import SPECIALISTS
from core.draws import Draw
from core.generators import training
from core.recipe import Recipe, identity
from merging.generation.values import changed, values_of

Floats = NDArray[np.float64]
#: What is moved: a tensor's values by name.
Values = Mapping[str, Tensor]

SEEDS = 16
PARENTS = ("base", *SPECIALISTS)
SIZES: dict[str, dict[str, Any]] = {
    "rho 0.01": {"rho": 0.01},
    "rho 0.03": {"rho": 0.03},
    "rho 0.1": {"rho": 0.1},
    "rho 0.3": {"rho": 0.3},
    "strength 0.3": {"strength": 0.3},
    "strength 1": {"strength": 1.0},
}
#: Those of a quick run.
FEW = ("rho 0.03", "strength 1")


#: What item 9 compares, in the order of its figures.
RIVALS = (
    "samples, anchored",
    "samples, absolute from noise",
    "noise of the code alone",
    "matched noise",
    "a parent's values",
    "the parents' mean",
    "random means of the parents",
    "a normal per value",
)
#: What is looked at for item 9b, and the most of the parents' distance that may be lost.
SEEN, LOST = ("norms and row norms, by default", "norms, as `delta`"), 0.3


def interval(differences: Sequence[float] | Floats) -> tuple[float, float, float]:
    """The mean and its 95 % interval, by Student's t."""
    found = np.asarray(differences, dtype=np.float64)
    error = float(found.std(ddof=1)) / len(found) ** 0.5 * float(student.ppf(0.975, len(found) - 1))
    mean = float(found.mean())
    return mean, mean - error, mean + error


def matched(report: Report, setting: Setting) -> None:
    """Claim how samples of one checkpoint's norms do beside noise of the same size per tensor, around the base."""
    kept = norms_generator(setting)
    base = setting.loss(setting.recipe(), setting.hearsay)
    for name, size in SIZES.items():
        if report.quick and name not in FEW:
            report.skip(f"8: {name}: ln perplexity, sample less matched noise", None, "32 samples, each on 600 texts")
            continue
        arms = {arm: _losses(setting, kept, arm, size) - base for arm in ("diffusion", "matched-noise")}
        mean, low, high = interval(arms["diffusion"] - arms["matched-noise"])
        report.claim(f"8: {name}: ln perplexity over the base's, sample", float(arms["diffusion"].mean()), "nats")
        report.claim(f"8: {name}: the same, matched noise", float(arms["matched-noise"].mean()), "nats")
        report.claim(f"8: {name}: ln perplexity, sample less matched noise", mean, "nats")
        report.claim(f"8: {name}: the same, lower 95 % bound", low, "nats")
        report.claim(f"8: {name}: the same, upper 95 % bound", high, "nats")


def _losses(setting: Setting, kept: Kept, arm: str, size: Mapping[str, Any]) -> Floats:
    draws = [Draw(generator=kept.digest, selectors=NORMS, arm=arm, seed=seed, **size) for seed in range(SEEDS)]  # type: ignore[arg-type]
    return np.array([setting.loss(setting.recipe(draw), setting.hearsay) for draw in draws])


def everything(setting: Setting) -> tuple[str, ...]:
    """The selectors of all norms and all blocks."""
    return (*NORMS, *(f"block:{layer}" for layer in range(setting.nursery.models["base"].header.layers)))


def parents_generator(setting: Setting) -> Kept:
    """Norms and the row norms of every matrix in the stack, of the base and its specialists."""
    return setting.trained(setting.sources(*PARENTS), training(selectors=everything(setting)))


def visible(report: Report, setting: Setting) -> None:
    """Claim whether generators of several parents see what these differ by."""
    names = [f"9b: {name}: error of rebuilding over the parents' distance" for name in SEEN]
    if report.quick:
        for name in names:
            report.skip(name, LOST, "two generators of four parents are trained")
        return
    delta = setting.trained(setting.sources(*PARENTS), training(parameterisation="delta"))
    for name, kept in zip(names, (parents_generator(setting), delta), strict=True):
        report.claim(name, kept.opened().metrics["error_over_source_distance"], "of 1", LOST, "lower")


def rivals(report: Report, setting: Setting) -> None:
    """Claim the held-out loss of what a generator of the parents samples around their merge, beside its rivals."""
    if report.quick:
        for name in RIVALS:
            report.skip(_best(name), None, "a generator of four parents is trained, and 86 models read 1200 texts each")
        return
    kept, merge = parents_generator(setting), setting.merged()
    whole = {name: setting.loss(identity(name, save_dtype="float32"), setting.skills) for name in PARENTS}
    report.claim("9: loss of the best parent as it is", min(whole.values()), "nats")
    report.claim("9: loss of the merge that is sampled around", setting.loss(merge, setting.skills), "nats")
    for name, candidates in zip(RIVALS, _arms(setting, kept, merge), strict=True):
        losses = _tried(setting, candidates)
        practice, held_out = losses.T
        if len(losses) > 1:
            report.claim(f"9: {name}: held-out loss, mean of {len(losses)}", float(held_out.mean()), "nats")
        report.claim(_best(name), float(held_out[practice.argmin()]), "nats")


def _best(name: str) -> str:
    return f"9: {name}: held-out loss of the best on practice"


#: Gives a candidate's model, which holds until the next one is asked for.
Candidate = Callable[[], Any]


def _tried(setting: Setting, candidates: Sequence[Candidate]) -> Floats:
    """(candidates, 2) losses on practice and on held-out texts."""
    found = []
    for candidate in candidates:
        model = candidate()
        found.append([loss_of(model, setting.practice), loss_of(model, setting.skills)])
    return np.array(found)


def _arms(setting: Setting, kept: Kept, merge: Recipe) -> Iterator[list[Candidate]]:
    """The candidates of each rival around the merge; those made by hand move the same values as the generator."""
    draw = Draw(generator=kept.digest, selectors=everything(setting))
    absolute = draw.evolve(mode="absolute", strength=1.0)
    for own in (draw, absolute, draw.evolve(arm="posterior"), draw.evolve(arm="matched-noise")):
        recipes = [setting.recipe(own.evolve(seed=seed), around=merge) for seed in range(SEEDS)]
        yield [partial(_built, setting, recipe) for recipe in recipes]
    known = sorted(kept.opened().entries)
    values = {name: _values(setting, name, known) for name in PARENTS}
    mean = _mixed(values, np.full(len(PARENTS), 1 / len(PARENTS)))
    yield [partial(_moved, setting, merge, moved) for moved in values.values()]
    yield [partial(_moved, setting, merge, mean)]
    rng = np.random.default_rng(2026)
    mixes = [_mixed(values, rng.dirichlet(np.ones(len(PARENTS)))) for _ in range(SEEDS)]
    yield [partial(_moved, setting, merge, moved) for moved in mixes]
    normal = [_normal(values, mean, seed) for seed in range(SEEDS)]
    yield [partial(_moved, setting, merge, moved) for moved in normal]


def _values(setting: Setting, parent: str, names: Sequence[str]) -> dict[str, Tensor]:
    parents, digest = setting.nursery.resident.parents, setting.nursery.models[parent].weights_digest
    return {name: values_of(parents.tensor(digest, name), "gain").clone() for name in names}


def _mixed(values: Mapping[str, Values], weights: Floats) -> dict[str, Tensor]:
    """The weighted mean of the parents' values."""
    first = next(iter(values.values()))
    pairs = list(zip(values.values(), map(float, weights), strict=True))
    return {name: torch.stack([own[name] * weight for own, weight in pairs]).sum(0) for name in first}


def _normal(values: Mapping[str, Values], mean: Values, seed: int) -> dict[str, Tensor]:
    """Every value from a normal distribution with the parents' mean and deviation."""
    draws, found = torch.Generator().manual_seed(seed), {}
    for name, centre in mean.items():
        spread = torch.stack([own[name] for own in values.values()]).std(0)
        found[name] = centre + spread * torch.empty_like(centre).normal_(generator=draws)
    return found


def _built(setting: Setting, recipe: Recipe) -> Any:
    return setting.build(recipe).model


def _moved(setting: Setting, merge: Recipe, values: Values) -> Any:
    """The merge's model with other values in its tensors."""
    built = setting.build(merge, apart=True)
    parameters = dict(built.model.named_parameters())
    for name, wanted in values.items():
        before = values_of(built.tensors[name], "gain")
        parameters[name].data = changed(built.tensors[name], before, wanted - before, "gain")
    return built.model
