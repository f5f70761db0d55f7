"""The two questions of a refinement, answered with the resident model: a minibatch's loss with its slopes, and the
score of some coefficients on kept-back items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from core.errors import CancelledError
from core.model import Model
from core.objective import Objective
from core.outcomes import Outcomes
from core.recipe import Recipe, ResolvedRecipe, resolve
from core.smooth import Axis, Coordinate, axes, by_tensor, with_tensor_values
from core.space import SearchSpace, Values
from core.tasks import order
from evaluation.gradient import Lesson, differentiate, smoothed
from evaluation.scorer import Scorer, never
from merging.differentiable import Followed
from merging.resident import Resident
from workers.runner.descent import Answer, Bounds, Point

#: What a forward and a backward pass over an item cost, in item evaluations.
BOTH_WAYS = 3
#: Digits of the coefficients that leave a refinement: more say nothing, and make recipes long.
DIGITS = 6


@dataclass(frozen=True)
class Items:
    """One task's search items as a refinement uses them.

    Attributes:
        task: its name.
        share: its part of the macro mean.
        kept: scored, never differentiated: the first of the study's order, which every candidate is scored on.
        rest: differentiated, in the order in which minibatches take them.
    """

    task: str
    share: float
    kept: tuple[int, ...]
    rest: tuple[int, ...]

    def batch(self, step: int, size: int) -> tuple[int, ...]:
        """The items of a step's minibatch; once all were seen they come again."""
        return tuple(self.rest[(step * size + index) % len(self.rest)] for index in range(min(size, len(self.rest))))


def divide(
    objective: Objective,
    scorer: Scorer,
    seed: int,
    *,
    kept_share: float,
    kept_most: int,
    stream: str = "",
    most: int | None = None,
) -> tuple[Items, ...]:
    """The objective's search items, told apart into kept-back ones and the rest.

    Args:
        objective: tasks and their weights.
        scorer: with the tasks prepared.
        seed: the study's.
        kept_share: the part of each task's items that is kept back.
        kept_most: how many are kept back of a task at most.
        stream: refinements of one study take the rest in orders of their own.
        most: of a task only the first so many items of the study's order are used; None for all.
    """
    found = []
    for spec, share in zip(objective.tasks, objective.shares, strict=True):
        content = scorer.prepared.tasks[spec.task].content
        ordered = order(seed, content.content_digest, content.side("search"))[:most]
        kept = max(1, min(kept_most, int(kept_share * len(ordered))))
        rest = ordered[kept:] or ordered
        found.append(Items(spec.task, share, ordered[:kept], order(seed, f"refine:{stream}:{spec.task}", rest)))
    return tuple(found)


class Memory(Protocol):
    """What is known of candidates: a look at one that was scored before costs nothing, and what it finds is kept.

    Scores are always read from here, so that a walk that begins anew sees the same numbers, to the last digit kept.
    """

    def known(self, recipe: ResolvedRecipe, task: str) -> Outcomes:
        """Outcomes of a candidate on some documents of a task."""

    def keep(self, recipe: ResolvedRecipe, task: str, found: Outcomes) -> None:
        """Outcomes that were not known before."""


class Notes:
    """A memory of its own, by recipe and task."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Outcomes] = {}

    def known(self, recipe: ResolvedRecipe, task: str) -> Outcomes:
        """Outcomes kept so far."""
        return self._found.get((recipe.digest(), task), Outcomes.empty())

    def keep(self, recipe: ResolvedRecipe, task: str, found: Outcomes) -> None:
        """Beside those kept already."""
        self._found[recipe.digest(), task] = self.known(recipe, task) | found


def complete(
    memory: Memory,
    resident: Resident,
    scorer: Scorer,
    recipe: ResolvedRecipe,
    wanted: Mapping[str, Sequence[int]],
    *,
    cancelled: Callable[[], bool] = never,
) -> int:
    """Have a candidate's outcomes on the wanted documents of each task known; how many were not."""
    missing = {
        task: found for task, numbers in wanted.items() if (found := memory.known(recipe, task).missing(numbers))
    }
    if missing:
        model = resident.build(recipe).model
        for task, numbers in missing.items():
            memory.keep(recipe, task, scorer.score(model, task, numbers, cancelled=cancelled))
    return sum(map(len, missing.values()))


class Ground:
    """What a refinement walks on: the candidates around a start, as functions of their smooth coefficients.

    Args:
        space: the compiled search space.
        values: of the start.
        models: registered models by name.
        resident: builds the candidates.
        scorer: with the objective's tasks prepared.
        items: per task, see `divide`.
        fine: every tensor has coefficients of its own.
        batch: items of a minibatch, over all tasks.
        temperature: what choices' log-likelihoods are divided by before their softmax, in units of the task's median
            margin at the start: tasks whose answers differ by little are as loud as others.
        batch_tokens: tokens of a pass with its graph; None takes what the device has room for.
        memory: of outcomes on kept-back items; one of its own by default.
        cancelled: asked between passes.
    """

    def __init__(
        self,
        space: SearchSpace,
        values: Values,
        models: Mapping[str, Model],
        resident: Resident,
        scorer: Scorer,
        items: Sequence[Items],
        *,
        fine: bool = False,
        batch: int = 48,
        temperature: float = 1.0,
        batch_tokens: int | None = None,
        memory: Memory | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        coarse = axes(space, values, models)
        self.axes: tuple[Axis, ...] = by_tensor(coarse) if fine else coarse
        self._space, self._values, self._models, self._fine = space, dict(values), models, fine
        self._resident, self._scorer, self._items = resident, scorer, tuple(items)
        self._batch, self._temperature, self._tokens = batch, temperature, batch_tokens
        self._memory, self._cancelled = memory or Notes(), cancelled
        self._scales: dict[str, float] = {}
        self._wanted = frozenset(coordinate for axis in self.axes for coordinate in axis.coordinates)

    @property
    def bounds(self) -> tuple[Bounds, ...]:
        """Of every axis."""
        return tuple(Bounds(axis.low, axis.high, axis.start) for axis in self.axes)

    def values_at(self, point: Point) -> dict[str, bool | int | float | str]:
        """The space's values at a point; a fine ground has none."""
        assert not self._fine
        return {**self._values, **{axis.name: value for axis, value in zip(self.axes, point, strict=True)}}

    def recipe_at(self, point: Point) -> Recipe:
        """The candidate at a point."""
        if not self._fine:
            return self._space.fill(self.values_at(point))
        cells: dict[Coordinate, float] = {}
        for axis, value in zip(self.axes, point, strict=True):
            cells.update(dict.fromkeys(axis.coordinates, value))
        return with_tensor_values(self._space.fill(self._values), cells, self._models)

    def loss(self, step: int, point: Point) -> Answer:
        """The loss of a step's minibatch, each task by its share, and its slopes."""
        self._stop_if_cancelled()
        lessons = []
        for part, size in zip(self._items, self._sizes(), strict=True):
            documents = self._scorer.prepared.tasks[part.task].documents
            numbers = part.batch(step, size)
            lessons += [
                Lesson(
                    documents[number], part.share / len(numbers), self._temperature * self._scales.get(part.task, 1.0)
                )
                for number in numbers
            ]
        recipe = resolve(self.recipe_at(point), self._models)
        with Followed(self._resident, recipe, wanted=self._wanted.__contains__) as followed:
            loss = differentiate(followed.model, lessons, batch_tokens=self._tokens)
            slopes: Mapping[Coordinate, float] = {Coordinate(*key): value for key, value in followed.slopes.items()}
        return Answer(loss, BOTH_WAYS * len(lessons), [axis.slope(slopes) for axis in self.axes])

    def score(self, point: Point) -> Answer:
        """The smoothed macro on the kept-back items; the first one, at the start, sets the temperatures."""
        self._stop_if_cancelled()
        start = tuple(bound.start for bound in self.bounds)
        # As it would leave the walk: what a look finds out is then true of the candidate that enters the race.
        recipe = resolve(self.recipe_at(point if point == start else rounded(point, self.bounds)), self._models)
        items = sum(len(part.kept) for part in self._items)
        wanted = {part.task: part.kept for part in self._items}
        fresh = complete(self._memory, self._resident, self._scorer, recipe, wanted, cancelled=self._cancelled)
        total = 0.0
        for part in self._items:
            found = self._memory.known(recipe, part.task).select(part.kept)
            total += part.share * smoothed(found)
            self._scales.setdefault(part.task, self._scale(part.task, found))
        return Answer(total, items, reused=items - fresh)

    def _scale(self, task: str, found: Outcomes) -> float:
        """The median size of a margin, in nats of a whole answer; 1 where all are 0."""
        documents = self._scorer.prepared.tasks[task].documents
        sizes = [abs(margin) * documents[number].rule.lengths.mean() for number, _, margin in found.items()]
        return float(median(sizes)) or 1.0

    def _sizes(self) -> list[int]:
        """A minibatch's items task by task: as equal as they can be, at least one each."""
        count = len(self._items)
        return [max(1, (self._batch + place) // count) for place in range(count)]

    def _stop_if_cancelled(self) -> None:
        if self._cancelled():
            raise CancelledError("the refinement was cancelled between two minibatches")


def rounded(point: Point, bounds: Sequence[Bounds]) -> Point:
    """The point with as many digits as are worth keeping."""
    return tuple(bound.clip(round(value, DIGITS)) for value, bound in zip(point, bounds, strict=True))
