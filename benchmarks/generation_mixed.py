"""A search that mixes merges, layouts and samples around the elite of an earlier one, beside the same without samples.

Once by the elite of an earlier search: merges alone are searched, the best of them train a generator, and two more
searches hear of the best merges, one over merges, layouts and samples around the best of them, one over merges and
layouts. And once with a generator of its own: a search over merges and layouts trains it on its way from what it has
found, and goes on with samples; beside it one without. Items are equal within each pair, and all are the product's own
proposer, race, scores and ranking (`search_driver`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import Report
from benchmarks.generation_selection import SHARES, TASKS, outcomes_of
from benchmarks.generation_setting import MERGE, Setting, everything
from benchmarks.search_driver import Advice, Candidate, Search
from benchmarks.search_driver import Setting as Searching
from benchmarks.search_nursery import HIGHEST, SPECIALISTS
from core.generators import training
from core.noun import canonical_json, digest_of
from core.params import Scalar
from core.recipe import Recipe
from core.space import SearchSpace
from core.space_spec import SpaceSpec
from core.statistics import confirm
from core.tasks import Side
from merging.generation.sources import candidate_source

Floats = NDArray[np.float64]
Values = Mapping[str, Scalar]

#: Full evaluations of the first search and of each of the two that follow; a search that trains its own generator does
#: so after the first, and has as many as both.
BEFORE, AFTER = 8.0, 12.0
FAMILIES, SEEDS = (7, 11, 23), (0, 1, 2)
#: Items per task.
ITEMS: Mapping[Side, int] = {"search": 300, "heldout": 1000}
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


#: What stands for a generator that is not trained yet.
UNTRAINED = "0" * 64
SAMPLED = ("diffusion", "matched-noise")
#: The two ways in which a search comes by its generator.
ELITE, OWN = "elite of a search", "a generator of its own"
#: The figures of either, with their units; and of the best diffusion finalist, where there is one.
TELLS = {
    "candidates that are samples": "of 1",
    "finalists sampled by diffusion": "of 3",
    "finalists that are matched noise": "of 3",
    "led by a sample": "of 1",
    "held-out accuracy with samples": "%",
    "held-out accuracy without, at equal items": "%",
    "held-out, with samples less without": "points",
    "diffusion finalists proved better than what they lie around": "of 3",
}


BEST = "best diffusion finalist on held-out items, less what it lies around"


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
        closed: families that nothing is proposed of yet.
        known: margins of candidates by recipe, of other searches as well; what is not there is scored.
    """

    def __init__(
        self,
        setting: Setting,
        families: Sequence[Mapping[str, Any]],
        seed: int,
        *,
        closed: Sequence[str] = (),
        known: dict[str, Margins] | None = None,
    ) -> None:
        self._setting, self._known = setting, {} if known is None else known
        models = setting.nursery.models
        spec = SpaceSpec.model_validate({"families": families})
        depth = models["base"].header.layers
        self.space = SearchSpace(spec, list(models), depth=depth, save_dtype="float32", seed=seed, closed=closed)
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
        recipe = self.space.fill(values)
        key = digest_of(recipe.model_dump(mode="json"))
        if key not in self._known:
            self._known[key] = Margins(self._setting, recipe)
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
    """A search that is told of the best merges of an earlier one, if there was one.

    Args:
        place: searched in.
        seed: of the study.
        known: weights of merges, the best first.
    """

    def __init__(self, place: Place, seed: int, known: Sequence[Mapping[str, float]] = ()) -> None:
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
        return _each_once(sorted(filter(lambda c: c.complete, self.ended), key=lambda c: -c.last_heard.score))

    def elite(self) -> list[Candidate]:
        """Merges, those scored on most items first, the best of these first: what a generator learns from."""
        merges = [candidate for candidate in self.ended if _kind(candidate) == "merge"]
        return _each_once(sorted(merges, key=lambda c: (-c.items, -c.last_heard.score)))[:TOP]


class Opening(Continued):
    """A search that trains a generator from its best at the first checkpoint, and goes on with samples.

    Args:
        setting: the nursery.
        seed: of the study.
        known: margins of candidates.
    """

    def __init__(self, setting: Setting, seed: int, known: dict[str, Margins]) -> None:
        waits = {"family": "generation", "generator": UNTRAINED}
        place = Place(setting, [MERGES, LAYOUTS, waits], seed, closed=("generation",), known=known)
        super().__init__(place, seed)
        self._setting, self._margins = setting, known
        self.around: Candidate | None = None

    def advise(self, spent: float) -> Advice:
        """Nothing, but the generator is trained."""
        if self.around is None:
            best = self.elite()
            families = [MERGES, LAYOUTS, _generation(self._setting, self._place, best)]
            self.around = best[0]
            self.reopen(Place(self._setting, families, self._seed, known=self._margins))
        return super().advise(spent)


def _each_once(candidates: Sequence[Candidate]) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        found.setdefault(canonical_json(dict(candidate.values)), candidate)
    return list(found.values())


def _weights(candidate: Candidate) -> dict[str, float]:
    return {name: float(candidate.values[f"merge.{MERGE}.weight.{name}"]) for name in SPECIALISTS}


def _generation(setting: Setting, place: Place, elite: Sequence[Candidate]) -> dict[str, Any]:
    """The family of samples: a generator of the elite, around the best of it."""
    sources = setting.sources("base")
    for candidate in elite:
        recipe = setting.resolved(place.space.fill(candidate.values))
        sources.append(candidate_source(recipe, setting.nursery.resident.parents, candidate.last_heard.score))
    selectors = everything(setting)
    kept = setting.trained(sources, training(selectors=selectors))
    around = place.space.fill(elite[0].values)
    family = {"family": "generation", "generator": kept.digest, "selectors": selectors, "subspace": 2}
    return {**family, "arms": SAMPLED, "around": around}


def mixed(family: int, seed: int) -> Callable[[Report], None]:
    """A part that claims whether samples reach the finalists of a study, and whether it ends higher for them.

    Args:
        family: seed of the nursery.
        seed: of the study.
    """

    def measure(report: Report) -> None:
        label = f"mixed, nursery {family}, seed {seed}"
        if report.quick:
            for form in (ELITE, OWN):
                report.skip(f"{label}, {form}: {next(iter(TELLS))}", None, "five searches and two trainings")
            return
        torch.set_num_threads(1)
        setting, known = Setting(family, ITEMS), {}  # type: ignore[var-annotated]
        for form, study in ((ELITE, _of_elite), (OWN, _of_its_own)):
            ours, plain, around = study(setting, seed, known)
            figures, best = _figures(ours, plain, around)
            for (name, unit), value in zip(TELLS.items(), figures, strict=True):
                report.claim(f"{label}, {form}: {name}", value, unit)
            if best is not None:
                report.claim(f"{label}, {form}: {BEST}", best, "points")
            kinds = ", ".join(_kind(candidate) for candidate in ours.ranked[:FINALISTS])
            report.note(f"{label}, {form}: finalists {kinds}")

    return measure


def _of_elite(setting: Setting, seed: int, known: dict[str, Margins]) -> tuple[Continued, Continued, NDArray[np.bool_]]:
    """A search of merges; then two that hear of its best, with samples from a generator of its elite and without."""
    place = Place(setting, [MERGES], seed, known=known)
    first = Continued(place, seed)
    first.run([BEFORE])
    told = [_weights(candidate) for candidate in first.ranked[:TOLD]]
    best = first.elite()
    families = [MERGES, LAYOUTS, _generation(setting, place, best)]
    ours, plain = (Continued(Place(setting, own, seed, known=known), seed, told) for own in (families, families[:2]))
    for search in (ours, plain):
        search.run([AFTER])
    return ours, plain, _right(first, best[0])


def _of_its_own(
    setting: Setting, seed: int, known: dict[str, Margins]
) -> tuple[Continued, Continued, NDArray[np.bool_]]:
    """A search that trains its own generator on its way, and one of as many items that does not."""
    ours, plain = Opening(setting, seed, known), Continued(Place(setting, [MERGES, LAYOUTS], seed, known=known), seed)
    ours.run([BEFORE, BEFORE + AFTER])
    plain.run([BEFORE + AFTER])
    assert ours.around is not None
    return ours, plain, _right(ours, ours.around)


def _figures(ours: Continued, plain: Continued, around: NDArray[np.bool_]) -> tuple[list[float], float | None]:
    """The values of `TELLS`, and of `BEST`."""
    finalists = ours.ranked[:FINALISTS]
    kinds = [_kind(candidate) for candidate in finalists]
    ends = [_right(search, search.ranked[0]) for search in (ours, plain)]
    drawn = [_right(ours, candidate) for candidate in finalists if _kind(candidate) == "diffusion"]
    gains = [100 * float(each.mean() - around.mean()) for each in drawn]
    figures = [
        sum(_kind(candidate) in SAMPLED for candidate in ours.ended) / len(ours.ended),
        kinds.count("diffusion"),
        kinds.count("matched-noise"),
        float(kinds[0] in SAMPLED),
        *(100 * float(end.mean()) for end in ends),
        100 * float(ends[0].mean() - ends[1].mean()),
        sum(_verdict(each, around) == "gain" for each in drawn),
    ]
    return figures, max(gains, default=None)


def _kind(candidate: Candidate) -> str:
    family = str(candidate.values.get("family", "merge"))
    return str(candidate.values["generation.arm"]) if family == "generation" else family


def _right(search: Search, candidate: Candidate) -> NDArray[np.bool_]:
    """(tasks, items) whether a candidate is right on held-out items."""
    return np.asarray(search.world.held_out(candidate.values) > 0)


def _verdict(leader: NDArray[np.bool_], reference: NDArray[np.bool_]) -> str:
    one, other = ([outcomes_of(task) for task in found] for found in (leader, reference))
    return confirm([("leader", one)], ("before", other), TASKS, SHARES).verdict
