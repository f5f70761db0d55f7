"""A search by refinement on real merges, step by step as the service does it with one worker.

Parents and reference are scored in full, known good starts are raced, the best of them is refined, and what was found
is raced with them: rungs, decisions and starts are the service's own. Nothing else is proposed, so this is the shortest
search that refines. Every item is counted, a forward and backward pass as three.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from benchmarks.search_evolved import Found
from benchmarks.search_nursery import SPECIALISTS, Floats, Nursery
from core.jobs import Budget, Racing
from core.outcomes import Outcomes
from core.params import Scalar
from core.recipe import Recipe, identity
from core.refinement import Refine
from core.rungs import rung_sizes
from core.statistics import confirm
from search.plan import seeds
from search.racing import Decision, Standing, decide
from search.refining import Candidate, Granularity, Start, around, starts
from search.scores import paired, smooth
from workers.runner.descent import Pace, walk
from workers.runner.refining import Ground, divide, rounded

Values = dict[str, Scalar]

PARENTS = ("base", *SPECIALISTS)
#: A budget that pays for whatever is to be begun.
ENOUGH = Budget(trials=40)
RACING = Racing()


class Search(NamedTuple):
    """How a search by refinement ended.

    Attributes:
        found: what it returns; its items and seconds are without the confirmation.
        confirmation: items of the finalists and the best parent on held-out items.
        verdict: of the confirmation.
        spent: items by what they were spent on.
    """

    found: Found
    confirmation: int
    verdict: str
    spent: dict[str, int]


@dataclass
class Raced:
    """A candidate: its recipe, its values where the space has them, and its margins as far as it was scored."""

    recipe: Recipe
    values: Values | None = None
    margins: Floats = field(default_factory=lambda: np.zeros((len(SPECIALISTS), 0)))
    first: float = 0.0
    score: float = 0.0


class Race:
    """All candidates of one search, on one worker.

    Args:
        nursery: the family.
        seed: of the study.
        rules: of the refinements.
    """

    def __init__(self, nursery: Nursery, seed: int, rules: Refine) -> None:
        self.nursery, self.seed, self.rules = nursery, seed, rules
        self.space = nursery.space("task_arithmetic")
        per_task = [len(nursery.numbers(spec.task, "search")) for spec in nursery.objective.tasks]
        self.rungs, self.shares = rung_sizes(RACING, per_task), nursery.objective.shares
        self.spent = dict.fromkeys(("parents", "reference", "walks", "race"), 0)
        self.parents: dict[str, Raced] = {}
        self.candidates: list[Raced] = []
        self._standings: list[Standing] = []
        self._reference: list[Floats] = []

    def opened(self) -> None:
        """Parents and the reference in full, then the other known good starts."""
        first, *others = seeds(self.space)
        uniform = Raced(self.space.fill(first), first)
        for rung in range(len(self.rungs)):
            self._score(uniform, rung, "reference")
        self._reference = [smooth(task) for task in uniform.margins]
        self._hear(uniform)
        self.candidates.append(uniform)
        for name in PARENTS:
            self.parents[name] = Raced(identity(name, save_dtype="float32"))
            for rung in range(len(self.rungs)):
                self._score(self.parents[name], rung, "parents")
            self._hear(self.parents[name])
        for values in others:
            self.enter(self.space.fill(values), values)

    def enter(self, recipe: Recipe, values: Values | None) -> Raced:
        """A new candidate, raced as far as it comes."""
        candidate = Raced(recipe, values)
        for rung in range(len(self.rungs)):
            self._score(candidate, rung, "race")
            own = [smooth(task) for task in candidate.margins]
            candidate.score = paired(own, self._reference, self.shares).score
            candidate.first = candidate.first if rung else candidate.score
            mine = Standing(rung, candidate.score)
            decision = decide(mine, self._standings, self.rungs, RACING.eta)
            self._standings.append(mine)
            if decision is not Decision.RAISE:
                break
        self.candidates.append(candidate)
        return candidate

    def refined(self) -> None:
        """Every refinement that the service begins, one after the other, and what they find in the race."""
        begun: dict[tuple[str, Granularity], list[Raced]] = {}
        while due := starts(
            self.space, self._heard(), set(begun), self.rules, ENOUGH, fine_leads=self._fine_leads(begun)
        ):
            for start in due:
                found = [self.enter(*one) for one in self._walked(start)]
                begun[start.structure, start.granularity] = found
        every = [candidate for found in begun.values() for candidate in found]
        best = max(every, key=lambda each: (each.margins.shape[1], each.score), default=None)
        if best is not None and best.values is not None:
            for values in around(self.space, best.values, self.rules.polish, self.seed):
                self.enter(self.space.fill(values), values)

    def ranked(self) -> list[Raced]:
        """Those scored in full, the best first."""
        whole = [each for each in self.candidates if each.margins.shape[1] == self.rungs[-1]]
        return sorted(whole, key=lambda each: -each.score)[: RACING.finalists]

    def _score(self, candidate: Raced, rung: int, what: str) -> None:
        done, last = candidate.margins.shape[1], self.rungs[rung]
        block = self.nursery.margins(candidate.recipe, "search", first=done, last=last)
        candidate.margins = np.concatenate([candidate.margins, block], axis=1)
        self.spent[what] += block.size

    def _hear(self, candidate: Raced) -> None:
        """One that was scored in full at once, on every rung."""
        for rung, size in enumerate(self.rungs):
            own = [smooth(task[:size]) for task in candidate.margins]
            candidate.score = paired(own, self._reference, self.shares).score
            candidate.first = candidate.first if rung else candidate.score
            self._standings.append(Standing(rung, candidate.score))

    def _heard(self) -> list[Candidate]:
        return [
            Candidate(f"{place:04}", each.values, each.first)
            for place, each in enumerate(self.candidates)
            if each.values is not None
        ]

    def _fine_leads(self, begun: dict[tuple[str, Granularity], list[Raced]]) -> bool | None:
        fine = [found for (_, grain), found in begun.items() if grain == "tensor"]
        best = max((each.first for found in fine for each in found), default=-np.inf)
        return best > max(each.score for each in self._heard()) if fine else None

    def _walked(self, way: Start) -> Iterator[tuple[Recipe, Values | None]]:
        """Walk, then give what was found."""
        nursery, fine = self.nursery, way.granularity == "tensor"
        items = divide(
            nursery.objective,
            nursery.scorer,
            nursery.seed,
            kept_share=self.rules.kept_share,
            kept_most=self.rules.kept_most,
            stream=f"{self.seed}:{way.granularity}",
            most=self.rungs[-1],
        )
        ground = Ground(
            self.space,
            way.candidate.values,
            nursery.models,
            nursery.resident,
            nursery.scorer,
            items,
            fine=fine,
            batch=self.rules.batch,
            temperature=self.rules.temperature,
        )
        pace = Pace(rate=self.rules.rate, max_items=way.max_items)
        found = walk(ground.bounds, pace, loss=ground.loss, score=ground.score)
        self.spent["walks"] += found.items
        for point in dict.fromkeys(rounded(point, ground.bounds) for point in found.points()):
            yield ground.recipe_at(point), None if fine else ground.values_at(point)


def refined(nursery: Nursery, seed: int, rules: Refine) -> Search:
    """One search: what it returns, what that cost, and whether it is proved."""
    race, begun = Race(nursery, seed, rules), time.process_time()
    race.opened()
    race.refined()
    seconds, ranked = time.process_time() - begun, race.ranked()
    held_out = [nursery.margins(each.recipe, "heldout") for each in ranked]
    best = max(race.parents.values(), key=lambda each: float((each.margins > 0).mean()))
    parent = nursery.margins(best.recipe, "heldout")
    found = Found.of(held_out[0], ranked[0].score, sum(race.spent.values()), seconds)
    items = (len(ranked) + 1) * nursery.full("heldout")
    return Search(found, items, verdict_of(nursery, held_out, parent), race.spent)


def verdict_of(nursery: Nursery, finalists: Sequence[Floats], parent: Floats) -> str:
    """The service's verdict over finalists, in their order, from (tasks, items) margins on held-out items."""
    named = [(f"finalist {place}", _outcomes(margins)) for place, margins in enumerate(finalists)]
    tasks = [spec.task for spec in nursery.objective.tasks]
    return str(confirm(named, ("best parent", _outcomes(parent)), tasks, nursery.objective.shares).verdict)


def _outcomes(margins: Floats) -> list[Outcomes]:
    numbers = tuple(range(margins.shape[1]))
    return [Outcomes(numbers, tuple(int(m > 0) for m in task), tuple(map(float, task))) for task in margins]
