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
from benchmarks.generation_setting import (
    NORMS,
    PARENTS,
    Kept,
    Setting,
    everything,
    loss_of,
    norms_generator,
    parents_generator,
)
from core.draws import Draw
from core.generators import Parameterisation
from core.recipe import identity
from merging.generation.values import changed, values_of

Floats = NDArray[np.float64]
#: What is moved: a tensor's values by name.
Values = Mapping[str, Tensor]
#: Measures one thing and claims its figures.
Part = Callable[[Report, Setting], None]

SEEDS = 16
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


#: What item 9 compares, in the order of its figures; the first are the generator's own.
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
SAMPLES = RIVALS[:3]
#: What is generated, in words, and the radius at which all rivals are compared: about as far as the parents' mean lies
#: from the merge.
FED: dict[Parameterisation, tuple[str, float]] = {"gain": ("row norms", 0.006), "delta": ("residuals", 0.04)}
#: The most of the parents' distance that rebuilding may lose (item 9b), and the least that a sample keeps from the
#: nearest of them, over the same, before it counts as a replica (item 14).
LOST, REPLICA = 0.3, 0.1


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


def visible(report: Report, setting: Setting) -> None:
    """Claim whether generators of several parents see what these differ by, and whether samples only repeat one."""
    for parameterisation, (what, _) in FED.items():
        names = (
            f"9b: {what}: error of rebuilding over the parents' distance",
            f"14: {what} of four parents: nearest parent to a sample from noise, over the parents' distance",
        )
        if report.quick:
            for name, goal in zip(names, (LOST, REPLICA), strict=True):
                report.skip(name, goal, "a generator of four parents is trained")
            continue
        metrics = parents_generator(setting, parameterisation).opened().metrics
        told = metrics["memorisation"]
        report.claim(names[0], metrics["error_over_source_distance"], "of 1", LOST, "lower")
        report.claim(names[1], told["ratio"], "", REPLICA)
        report.claim(f"14: {what} of four parents: samples called a replica", float(told["replica"]), "of 1")
        report.claim(
            f"14: {what} of four parents: samples from one another, over the parents' distance",
            told["median_sample_distance"] / told["median_source_distance"],
            "",
        )


def rivals(parameterisation: Parameterisation, *, equal: bool) -> Part:
    """A part that claims the held-out loss of samples around the parents' merge beside their rivals'.

    Args:
        parameterisation: what is generated, and moved by the rivals.
        equal: whether all lie at one distance from the merge, tensor by tensor, or where they come to lie.
    """
    what, radius = FED[parameterisation]
    rho = radius if equal else None
    label = f"9: {what}, " + (f"at {radius:g}" if equal else "as they come")

    def part(report: Report, setting: Setting) -> None:
        if report.quick:
            for name in RIVALS:
                reason = "a generator of four parents is trained, and 85 models read 1200 texts each"
                report.skip(_best(label, name), None, reason)
            return
        place = Place(setting, parameterisation, rho)
        if not equal:
            whole = [setting.loss(identity(name, save_dtype="float32"), setting.skills) for name in PARENTS]
            report.claim(f"{label}: loss of the best parent as it is", min(whole), "nats")
            report.claim(f"{label}: loss of the merge", setting.loss(place.merge, setting.skills), "nats")
        found = {name: place.tried(candidates) for name, candidates in zip(RIVALS, place.arms(), strict=True)}
        for name, tried in found.items():
            _told(report, label, name, tried)
        ends = {name: float(tried[tried[:, 0].argmin(), 1]) for name, tried in found.items()}
        least = min(loss for name, loss in ends.items() if name not in SAMPLES)
        claim = f"{label}: best of the anchored samples on practice, less the best of the rivals'"
        report.claim(claim, ends["samples, anchored"] - least, "nats")
        mean, low, high = interval(found["samples, anchored"][:, 1] - found["matched noise"][:, 1])
        report.claim(f"{label}: sample less matched noise", mean, "nats")
        report.claim(f"{label}: sample less matched noise, lower 95 % bound", low, "nats")
        report.claim(f"{label}: sample less matched noise, upper 95 % bound", high, "nats")

    return part


def _told(report: Report, label: str, name: str, tried: Floats) -> None:
    practice, held_out, distance = tried.T
    report.claim(f"{label}: {name}: candidates", len(tried), "")
    report.claim(f"{label}: {name}: distance from the merge, mean over tensors", float(distance.mean()), "")
    report.claim(f"{label}: {name}: held-out loss, mean", float(held_out.mean()), "nats")
    report.claim(_best(label, name), float(held_out[practice.argmin()]), "nats")


def _best(label: str, name: str) -> str:
    return f"{label}: {name}: held-out loss of the best on practice"


#: Gives a candidate's model, which holds until the next one is asked for.
Candidate = Callable[[], Any]


class Place:
    """The merge that all rivals of item 9 lie around, and what they move.

    Args:
        setting: the nursery.
        parameterisation: what is moved of each tensor.
        rho: how far, over the size of what is moved, tensor by tensor; None is as far as they come.
    """

    def __init__(self, setting: Setting, parameterisation: Parameterisation, rho: float | None) -> None:
        self._setting, self._parameterisation, self._rho = setting, parameterisation, rho
        self.merge = setting.merged()
        self._kept = parents_generator(setting, parameterisation)
        self._names = sorted(self._kept.opened().entries)
        self._before = self._values(dict(setting.build(self.merge).tensors))

    def tried(self, candidates: Sequence[Candidate]) -> Floats:
        """(candidates, 3): losses on practice and on held-out texts, and the distance from the merge."""
        found = []
        for candidate in candidates:
            model = candidate()
            texts = self._setting.practice, self._setting.skills
            found.append([*(loss_of(model, rows) for rows in texts), self._distance(model)])
        return np.array(found)

    def arms(self) -> Iterator[list[Candidate]]:
        """The candidates of each rival around the merge; those made by hand move the same values as the generator."""
        draw = Draw(generator=self._kept.digest, selectors=everything(self._setting), rho=self._rho)
        absolute = draw.evolve(mode="absolute", strength=1.0)
        for own in (draw, absolute, draw.evolve(arm="posterior"), draw.evolve(arm="matched-noise")):
            yield [partial(self._drawn, own.evolve(seed=seed)) for seed in range(SEEDS)]
        values = {name: self._of_parent(name) for name in PARENTS}
        mean = _mixed(values, np.full(len(PARENTS), 1 / len(PARENTS)))
        yield [partial(self._moved, moved) for moved in values.values()]
        yield [partial(self._moved, mean)]
        rng = np.random.default_rng(2026)
        yield [partial(self._moved, _mixed(values, rng.dirichlet(np.ones(len(PARENTS))))) for _ in range(SEEDS)]
        # Made when they are asked for: sixteen copies of all values would be held otherwise.
        yield [partial(self._normal, values, mean, seed) for seed in range(SEEDS)]

    def _drawn(self, draw: Draw) -> Any:
        return self._setting.build(self._setting.recipe(draw, around=self.merge)).model

    def _normal(self, values: Mapping[str, Values], mean: Values, seed: int) -> Any:
        return self._moved(_normal(values, mean, seed))

    def _moved(self, wanted: Values) -> Any:
        """The merge's model with other values in its tensors, or as far on the way to them as the radius says."""
        built = self._setting.build(self.merge, apart=True)
        parameters = dict(built.model.named_parameters())
        for name, values in wanted.items():
            before = self._before[name]
            change = values - before
            if self._rho is not None:
                change = change * (self._rho * before.norm() / change.norm().clamp_min(1e-30))
            parameters[name].data = changed(built.tensors[name], before, change, self._parameterisation)
        return built.model

    def _values(self, tensors: Values) -> dict[str, Tensor]:
        return {name: values_of(tensors[name], self._parameterisation).clone() for name in self._names}

    def _of_parent(self, parent: str) -> dict[str, Tensor]:
        parents, digest = (
            self._setting.nursery.resident.parents,
            self._setting.nursery.models[parent].weights_digest,
        )
        return self._values({name: parents.tensor(digest, name) for name in self._names})

    def _distance(self, model: Any) -> float:
        now = self._values({name: parameter.data for name, parameter in model.named_parameters()})
        return float(np.mean([float((now[name] - old).norm() / old.norm()) for name, old in self._before.items()]))


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
