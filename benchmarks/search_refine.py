"""Gradient refinement against mergekit-evolve's search, on real merges of grown nurseries.

    python -m benchmarks.search_refine [--quick] [--json FILE]

Both search the weights of three task vectors on the same search items, and what they return is scored on held-out
items that neither saw. The baseline is CMA-ES as the tool runs it: 100 candidates, every one on every search item, and
the best score ever seen is returned. Ours is a search's own policy, step by step: parents and reference in full, known
good starts on the first rung, a refinement of the best of them by hole and by tensor, and a race of what it found.
Every item is counted, a forward and backward pass as three.

Families are grown under HUARIZO_BENCHMARK_NURSERIES (a temporary folder without it). The rules of the refinement were
chosen on family 7; claims are made on others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import Report, run
from benchmarks.search_nursery import SPECIALISTS, Nursery
from core.jobs import Budget
from core.params import Scalar
from core.recipe import Recipe
from core.refinement import Refine
from core.space import SearchSpace
from examples.nursery.grow import grow
from search.plan import seeds
from search.refining import Candidate, Start, around, starts
from search.scores import paired, smooth
from search.study import Proposer
from workers.runner.descent import Pace, walk
from workers.runner.refining import Ground, divide, rounded

Floats = NDArray[np.float64]
Values = dict[str, Scalar]

ITEMS = {"search": 300, "heldout": 1000}
FULL = 3 * ITEMS["search"]
RUNGS = (50, 200, ITEMS["search"])
EVALUATIONS = 100
FAMILIES = (11, 23, 31)
SEARCHES = 10
GAIN = "held-out macro, search by refinement minus mergekit-evolve"
FEWER = "items, mergekit-evolve / search by refinement"
SHARES = (1 / 3, 1 / 3, 1 / 3)


class Found(NamedTuple):
    """What a search would return if it ended here.

    Attributes:
        held_out: macro accuracy of that on held-out items, in %.
        items: item evaluations up to here.
        seconds: of the device up to here.
    """

    held_out: float
    items: int
    seconds: float

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.held_out:.2f} % ({self.items} items, {self.seconds:.0f} s)"


@dataclass
class Raced:
    """A candidate in the race: its recipe, and its margins as far as it was scored."""

    recipe: Recipe
    margins: Floats
    items: int = 0
    score: float = 0.0


class Trial:
    """One search by refinement on one family.

    Args:
        nursery: the family.
        space: what is searched.
        seed: of the study.
    """

    def __init__(self, nursery: Nursery, space: SearchSpace, seed: int) -> None:
        self.nursery, self.space, self.seed = nursery, space, seed
        self.items, self._begun, self._away = 0, time.perf_counter(), 0.0
        self._reference: list[Floats] = []

    def parents_and_reference(self) -> None:
        """Score them in full, as every search does before it hears of others."""
        for name in self.nursery.models:
            self.nursery.parent(name, "search")
            self.items += FULL
        uniform = self.nursery.margins(self.space.uniform()[0], "search")
        self._reference = [smooth(task) for task in uniform]
        self.items += FULL

    def raise_to(self, candidate: Raced, rung: int) -> None:
        """Score a candidate up to a rung: all its margins are known, but what lies beyond is not looked at."""
        self.items += 3 * (rung - candidate.items)
        candidate.items = rung
        own = [smooth(task[:rung]) for task in candidate.margins]
        candidate.score = paired(own, self._reference, SHARES).score

    def raced(self, recipe: Recipe) -> Raced:
        """A new candidate, on the first rung."""
        candidate = Raced(recipe, self.nursery.margins(recipe, "search"))
        self.raise_to(candidate, RUNGS[0])
        return candidate

    def found(self, recipe: Recipe) -> Found:
        """Look at the held-out items; neither they nor the time they take count."""
        items, seconds = self.items, time.perf_counter() - self._begun - self._away
        score = held_out(self.nursery, recipe)
        self._away += time.perf_counter() - self._begun - self._away - seconds
        return Found(score, items, seconds)


def held_out(nursery: Nursery, recipe: Recipe) -> float:
    """Macro accuracy on held-out items, in %."""
    return 100.0 * float((nursery.margins(recipe, "heldout") > 0).mean())


def refined(nursery: Nursery, seed: int, rules: Refine) -> dict[str, Found]:
    """A search by refinement: what it would return after its first refinement, after all of them, and in the end."""
    space = nursery.space("task_arithmetic")
    trial = Trial(nursery, space, seed)
    trial.parents_and_reference()
    before = trial.items
    known = {f"s{place}": values for place, values in enumerate(seeds(space))}
    race = {name: trial.raced(space.fill(values)) for name, values in known.items()}
    candidates = [Candidate(name, known[name], race[name].score) for name in known]
    ways = starts(space, candidates, set(), rules, Budget(trials=40))
    told: dict[str, Found] = {}
    inside: list[tuple[float, Values]] = []
    for way in ways:
        for recipe, values in _walked(trial, way, rules):
            candidate = trial.raced(recipe)
            race[f"r{len(race)}"] = candidate
            if values is not None:
                inside.append((candidate.score, values))
        told[f"after {len(told) + 1}"] = trial.found(_leader(race.values()).recipe)
    best = max(inside, key=lambda pair: pair[0])[1] if inside else None
    for values in around(space, best, rules.polish, seed) if best is not None else []:
        race[f"p{len(race)}"] = trial.raced(space.fill(values))
    for rung, count in zip(RUNGS[1:], (4, 2), strict=True):
        for candidate in sorted(race.values(), key=lambda each: -each.score)[:count]:
            trial.raise_to(candidate, rung)
    end = trial.found(_leader([each for each in race.values() if each.items == RUNGS[-1]]).recipe)
    return {**told, "end": end, "alone": end._replace(items=end.items - before)}


def _leader(race: Iterable[Raced]) -> Raced:
    return max(race, key=lambda each: each.score)


def _walked(trial: Trial, way: Start, rules: Refine) -> list[tuple[Recipe, Values | None]]:
    nursery = trial.nursery
    fine = way.granularity == "tensor"
    items = divide(
        nursery.objective,
        nursery.scorer,
        nursery.seed,
        kept_share=rules.kept_share,
        kept_most=rules.kept_most,
        stream=f"{trial.seed}:{way.granularity}",
        most=ITEMS["search"],
    )
    ground = Ground(
        trial.space,
        way.candidate.values,
        nursery.models,
        nursery.resident,
        nursery.scorer,
        items,
        fine=fine,
        batch=rules.batch,
        temperature=rules.temperature,
    )
    found = walk(ground.bounds, Pace(rate=rules.rate, max_items=way.max_items), loss=ground.loss, score=ground.score)
    trial.items += found.items
    points = list(dict.fromkeys(rounded(point, ground.bounds) for point in found.points()))
    return [(ground.recipe_at(point), None if fine else ground.values_at(point)) for point in points]


def evolved(nursery: Nursery, seed: int, evaluations: int) -> Found:
    """mergekit-evolve's search on the same items: the best score ever seen is returned."""
    space = nursery.space("task_arithmetic")
    proposer = Proposer(space, "mergekit-evolve", study_name="evolve", seed=seed)
    begun = time.perf_counter()
    best: tuple[float, Values] = (-1.0, {})
    for _ in range(evaluations):
        proposal = proposer.ask()
        score = float((nursery.of_values(space, proposal.values, "search") > 0).mean())
        proposer.tell_scored(proposal.number, score, items=ITEMS["search"])
        if score > best[0]:
            best = (score, dict(proposal.values))
    seconds = time.perf_counter() - begun
    return Found(held_out(nursery, space.fill(best[1])), evaluations * FULL, seconds)


def nursery_of(family: int) -> Nursery:
    """A family, grown where it is not there yet."""
    root = Path(os.environ.get("HUARIZO_BENCHMARK_NURSERIES", f"{gettempdir()}/huarizo-nurseries"))
    grow(root / str(family), seed=family)
    return Nursery(root / str(family), family, {"search": ITEMS["search"], "heldout": ITEMS["heldout"]})


def measure(report: Report) -> None:
    """The figures."""
    if report.quick:
        reason = "families must be grown, and 100 full evaluations of a real merge take minutes"
        report.skip(GAIN, 0.0, reason)
        report.skip(FEWER, 15.0, reason)
        return
    torch.set_num_threads(1)
    pairs = [pair for family in FAMILIES for pair in _compared(report, family)]
    _claim(report, [found for found, _ in pairs], [found for _, found in pairs])


def _compared(report: Report, family: int) -> Iterator[tuple[dict[str, Found], Found]]:
    """Every search of a family, ours and the baseline's."""
    nursery = nursery_of(family)
    report.note(f"family {family}: best parent {max(held_out_parent(nursery, n) for n in SPECIALISTS):.1f} % held out")
    for seed in range(SEARCHES):
        mine, theirs = refined(nursery, seed, Refine()), evolved(nursery, seed, EVALUATIONS)
        told = [f"{name} {found.told}" for name, found in (*mine.items(), ("mergekit-evolve", theirs))]
        report.note(f"family {family} seed {seed}: " + ", ".join(told))
        yield mine, theirs


def held_out_parent(nursery: Nursery, name: str) -> float:
    """A parent's macro accuracy on held-out items, in %."""
    return 100.0 * float((nursery.parent(name, "heldout") > 0).mean())


def _claim(report: Report, ours: Sequence[dict[str, Found]], theirs: Sequence[Found]) -> None:
    ends = [found["end"] for found in ours]
    differences = np.array([a.held_out - b.held_out for a, b in zip(ends, theirs, strict=True)])
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / len(differences) ** 0.5
    report.claim("held-out macro, search by refinement", _mean(found.held_out for found in ends), "%")
    report.claim("held-out macro, mergekit-evolve after 100", _mean(found.held_out for found in theirs), "%")
    report.claim(GAIN, mean, "points", 0.0)
    report.claim("the same, lower 95 % bound over searches", mean - 1.96 * error, "points")
    spent = _mean(found.items for found in theirs)
    report.claim(FEWER, spent / _mean(found.items for found in ends), "x", 15.0)
    report.claim("the same without parents and reference", spent / _mean(f["alone"].items for f in ours), "x")
    seconds = _mean(found.seconds for found in theirs) / _mean(found.seconds for found in ends)
    report.claim("device seconds, mergekit-evolve / search by refinement", seconds, "x")


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


if __name__ == "__main__":
    sys.exit(run("search_refine", measure))
