"""A search that mixes merges, layouts and samples around the elite of an earlier one, beside the same without samples.

First merges alone are searched. The best of them train a generator, and the search goes on for as many items again:
once over merges, layouts and samples around the best merge so far, once over merges and layouts. Both hear of the best
merges of before, and both are the product's own proposer, race, scores and ranking (`search_driver`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import Report
from benchmarks.generation_rivals import everything
from benchmarks.generation_selection import SHARES, TASKS, outcomes_of
from benchmarks.generation_setting import MERGE, Setting
from benchmarks.search_driver import Advice, Candidate, Search
from benchmarks.search_driver import Setting as Searching
from benchmarks.search_nursery import HIGHEST, SPECIALISTS
from core.generators import training
from core.noun import canonical_json
from core.params import Scalar
from core.recipe import Recipe
from core.space import SearchSpace
from core.space_spec import SpaceSpec
from core.statistics import confirm
from merging.generation.sources import candidate_source

Floats = NDArray[np.float64]
Values = Mapping[str, Scalar]

#: Full evaluations of the first search and of each of the two that follow.
BEFORE, AFTER = 10.0, 16.0
SEEDS = (0, 1, 2)
TOP, FINALISTS, TOLD = 8, 3, 3
STRATEGY = "gp"
MERGES: dict[str, Any] = {
    "family": "merge",
    "methods": (MERGE,),
    "base": "base",
    "sources": SPECIALISTS,
    "params": {"weight": {"low": 0.0, "high": HIGHEST}},
}
LAYOUTS: dict[str, Any] = {"family": "layout", "presets": ("dus", "drop", "repeat"), "sources": SPECIALISTS}


#: The figures, with their units.
TELLS = {
    "mixed: candidates that are samples": "of 1",
    "mixed: finalists sampled by diffusion": "of 1",
    "mixed: finalists that are matched noise": "of 1",
    "mixed: searches led by a sample": "of 1",
    "mixed: held-out, with samples less without, at equal items": "points",
    "mixed: leaders proved better than the best merge before": "of 1",
}


class Margins:
    """(tasks, items) margins of one candidate, scored as far as somebody looks."""

    def __init__(self, setting: Setting, recipe: Recipe) -> None:
        self._setting, self._recipe = setting, recipe
        self._known = np.zeros((len(setting.nursery.objective.tasks), 0))
        self.shape = (len(self._known), setting.items["search"])

    def __getitem__(self, key: tuple[slice, slice]) -> Floats:
        rows, columns = key
        stop = self.shape[1] if columns.stop is None else columns.stop
        if stop > self._known.shape[1]:
            self._known = np.hstack([self._known, self._scored(self._known.shape[1], stop)])
        return np.asarray(self._known[rows, columns])

    def __iter__(self) -> Iterator[Floats]:
        return iter(self[:, :])

    def __gt__(self, least: float) -> NDArray[np.bool_]:
        return np.asarray(self[:, :] > least)

    def _scored(self, first: int, last: int) -> Floats:
        nursery, model = self._setting.nursery, self._setting.build(self._recipe).model
        found = []
        for spec in nursery.objective.tasks:
            numbers = nursery.numbers(spec.task, "search")[first:last]
            with torch.no_grad():
                outcomes = nursery.scorer.score(model, spec.task, numbers)
            told = dict(zip(outcomes.numbers, outcomes.margins, strict=True))
            found.append([told[number] for number in numbers])
        return np.array(found)


class Place:
    """A space over the nursery, as the driver searches it.

    Args:
        setting: the nursery.
        families: of the space.
        seed: of the study.
    """

    def __init__(self, setting: Setting, families: list[dict[str, Any]], seed: int) -> None:
        self._setting, self._known = setting, {}  # type: ignore[var-annotated]
        models = setting.nursery.models
        spec = SpaceSpec.model_validate({"families": families})
        depth = models["base"].header.layers
        self.space = SearchSpace(spec, list(models), depth=depth, save_dtype="float32", seed=seed)
        self.per_task = setting.items["search"]
        self.uniform: Values = self.space.read(self.space.uniform()[0])
        self.parents: Sequence[Values] = [
            self.weights({name: float(name == own) for name in SPECIALISTS}) for own in SPECIALISTS
        ]

    def weights(self, wanted: Mapping[str, float]) -> Values:
        """The values of a merge with these weights."""
        return dict(self.uniform) | {f"merge.{MERGE}.weight.{name}": value for name, value in wanted.items()}

    def margins(self, values: Values) -> Any:
        """On search items."""
        key = canonical_json(dict(values))
        if key not in self._known:
            self._known[key] = Margins(self._setting, self.space.fill(values))
        return self._known[key]

    def held_out(self, values: Values) -> Floats:
        """On held-out items."""
        return self._setting.nursery.margins(self.space.fill(values), "heldout")

    def accuracy(self, values: Values) -> float:
        """On held-out items: the best that is known of the truth."""
        return float((self.held_out(values) > 0).mean())

    def regret(self, values: Values) -> float:
        """Points below perfection: nobody knows the best candidate."""
        return 100 * (1 - self.accuracy(values))


class Continued(Search):
    """A search that is told of the best merges of an earlier one.

    Args:
        place: searched in.
        seed: of the study.
        known: weights of merges, the best first.
    """

    def __init__(self, place: Place, seed: int, known: list[Mapping[str, float]]) -> None:
        super().__init__(place, Searching(STRATEGY), seed)
        self._place, self._told = place, known

    def _open(self) -> None:
        for wanted in self._told:
            self.proposer.enqueue(dict(self._place.weights(wanted)))
        super()._open()

    def advise(self, spent: float) -> Advice:
        """Nothing: held-out items are opened once, at the end."""
        return Advice(spent, 0.0, 0.0, 0.0, 0.0, 0.0)

    @cached_property
    def ranked(self) -> list[Candidate]:
        """Candidates that were scored in full, those worth most first, equal ones once."""
        found: dict[str, Candidate] = {}
        for candidate in sorted(filter(lambda c: c.complete, self.ended), key=lambda c: -c.last_heard.score):
            found.setdefault(canonical_json(dict(candidate.values)), candidate)
        return list(found.values())


def _searched(setting: Setting, families: list[dict[str, Any]], seed: int, known: Any, budget: float) -> Continued:
    search = Continued(Place(setting, families, seed), seed, known)
    search.run([budget])
    return search


def _weights(candidate: Candidate) -> dict[str, float]:
    return {name: float(candidate.values[f"merge.{MERGE}.weight.{name}"]) for name in SPECIALISTS}


def _generation(setting: Setting, first: Continued) -> dict[str, Any]:
    """The family of samples: a generator of the elite, around the best of it."""
    nursery, elite = setting.nursery, first.ranked[:TOP]
    sources = setting.sources("base")
    for candidate in elite:
        recipe = setting.resolved(first.world.space.fill(candidate.values))
        sources.append(candidate_source(recipe, nursery.resident.parents, candidate.last_heard.score))
    selectors = everything(setting)
    kept = setting.trained(sources, training(selectors=selectors))
    around = first.world.space.fill(elite[0].values)
    family = {"family": "generation", "generator": kept.digest, "selectors": selectors, "subspace": 2}
    return {**family, "arms": ("diffusion", "matched-noise"), "around": around}


def mixed(report: Report, setting: Setting) -> None:
    """Claim whether samples reach the finalists, and whether what is found is better for them, at equal items."""
    if report.quick:
        for name in TELLS:
            report.skip(name, None, f"{3 * len(SEEDS)} searches and {len(SEEDS)} trainings take minutes")
        return
    arms: Counter[str] = Counter()
    led, gains, tried, verdicts = 0, [], [], []
    for seed in SEEDS:
        first = _searched(setting, [MERGES], seed, [], BEFORE)
        known = [_weights(candidate) for candidate in first.ranked[:TOLD]]
        families: list[dict[str, Any]] = [MERGES, LAYOUTS, _generation(setting, first)]
        ours = _searched(setting, families, seed, known, AFTER)
        plain = _searched(setting, families[:2], seed, known, AFTER)
        finalists = [_kind(candidate) for candidate in ours.ranked[:FINALISTS]]
        arms.update(finalists)
        led += finalists[0] not in ("merge", "layout")
        tried.append(sum(_kind(c) not in ("merge", "layout") for c in ours.ended) / len(ours.ended))
        *ends, before = (_held_out(search) for search in (ours, plain, first))
        gains.append(100 * float(ends[0].mean() - ends[1].mean()))
        verdicts.append(_verdict(ends[0], before))
        report.note(f"mixed, seed {seed}: finalists {', '.join(finalists)}; held out {100 * ends[0].mean():.2f} % with "
                    f"samples, {100 * ends[1].mean():.2f} % without; best merge before "
                    f"{100 * before.mean():.2f} %, verdict against it: {verdicts[-1]}")  # fmt: skip
    total = FINALISTS * len(SEEDS)
    figures = (
        float(np.mean(tried)),
        arms["diffusion"] / total,
        arms["matched-noise"] / total,
        led / len(SEEDS),
        float(np.mean(gains)),
        verdicts.count("gain") / len(verdicts),
    )
    for (name, unit), value in zip(TELLS.items(), figures, strict=True):
        report.claim(name, value, unit)


def _kind(candidate: Candidate) -> str:
    family = str(candidate.values.get("family", "merge"))
    return str(candidate.values["generation.arm"]) if family == "generation" else family


def _held_out(search: Continued) -> NDArray[np.bool_]:
    return np.asarray(search.world.held_out(search.ranked[0].values) > 0)


def _verdict(leader: NDArray[np.bool_], reference: NDArray[np.bool_]) -> str:
    one, other = ([outcomes_of(task) for task in found] for found in (leader, reference))
    return confirm([("leader", one)], ("before", other), TASKS, SHARES).verdict
