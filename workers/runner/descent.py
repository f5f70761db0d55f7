"""Following slopes downhill within bounds, with an eye on items that the slopes never saw.

Adam (Kingma & Ba, arXiv 1412.6980) on a handful or some hundreds of coefficients, each clipped into its interval after
every step. Every few steps the coefficients are scored on kept-back items; past the optimum of these the walk drifts
off, so it ends there, and what is returned is the best of what was scored and the mean of the iterates around it.
Nothing here knows of models: the two questions are functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Point = tuple[float, ...]

#: Why a walk ended.
SPENT, DRIFTED = "items spent", "no better on kept-back items"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The interval of one coefficient, and where it starts."""

    low: float
    high: float
    start: float

    def clip(self, value: float) -> float:
        """The nearest value inside."""
        return min(max(value, self.low), self.high)

    @property
    def unit(self) -> float:
        """What a step of size 1 is on it: narrow intervals are walked in narrow steps."""
        return min(1.0, self.high - self.low)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a walk is walked.

    Attributes:
        rate: Adam's step size.
        check_every: steps between two looks at the kept-back items.
        patience: looks without a new best after which the walk ends.
        max_items: item evaluations that the walk may cost, a forward and backward pass counting as three.
    """

    rate: float = 0.06
    check_every: int = 3
    patience: int = 3
    max_items: int = 1500


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question was answered with.

    Attributes:
        value: the loss, or the kept-back score.
        items: item evaluations that it takes.
        slopes: of the loss, one per coefficient.
        reused: of the items, those whose outcomes were known. What a walk may cost is reckoned without them, so that
            it goes the same way whatever is known.
    """

    value: float
    items: int
    slopes: Sequence[float] = ()
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """The walk at one look at the kept-back items.

    Attributes:
        step: steps taken so far.
        loss: the mean loss of the minibatches since the last look; None at the start.
        score: on the kept-back items.
        items, seconds: spent so far.
        point: where the walk stood.
        reused: of the items, those whose outcomes were known.
    """

    step: int
    loss: float | None
    score: float
    items: int
    seconds: float
    point: Point
    reused: int = 0

    @property
    def fresh(self) -> int:
        """Item evaluations made so far."""
        return self.items - self.reused


@dataclass(frozen=True)
class Walk:
    """A finished walk: its looks, all its iterates from the start on, and why it ended."""

    looks: tuple[Look, ...]
    iterates: tuple[Point, ...]
    ended: str

    @property
    def best(self) -> Look:
        """The look with the highest score, the first of several."""
        return max(self.looks, key=lambda look: (look.score, -look.step))

    @property
    def items(self) -> int:
        """Item evaluations made."""
        return self.looks[-1].fresh

    def points(self) -> tuple[Point, ...]:
        """What is worth being scored: the best look, and the mean of the iterates around it where the walk drifted off.

        Without the start, which is a candidate already, and each once. A walk that was cut short is still on its way:
        its last iterates differ too little for a race to tell them apart.
        """
        start, best = self.iterates[0], self.best
        found = [best.point]
        if self.ended == DRIFTED:
            since = max(1, best.step // 2)
            around = self.iterates[since : best.step + max(1, best.step - since) + 1]
            found.append(tuple(math.fsum(values) / len(around) for values in zip(*around, strict=True)))
        return tuple(point for point in dict.fromkeys(found) if point != start)


def walk(
    bounds: Sequence[Bounds],
    pace: Pace,
    *,
    loss: Callable[[int, Point], Answer],
    score: Callable[[Point], Answer],
    told: Callable[[Look], None] = lambda look: None,
    clock: Callable[[], float] = time.monotonic,
) -> Walk:
    """Walk from the start until the kept-back score stops rising, or the items are spent.

    Args:
        bounds: of every coefficient.
        pace: how.
        loss: the loss of the given step's minibatch at a point, with its slopes.
        score: the score of a point on the kept-back items; higher is better.
        told: called at every look.
        clock: seconds.
    """
    begun = clock()
    point: Point = tuple(bound.clip(bound.start) for bound in bounds)
    iterates, looks, losses = [point], list[Look](), list[float]()
    first, second = [0.0] * len(bounds), [0.0] * len(bounds)
    spent = step = dear = reused = 0

    def look() -> int:
        nonlocal reused
        answer = score(point)
        reused += answer.reused
        mean = math.fsum(losses) / len(losses) if losses else None
        looks.append(Look(step, mean, answer.value, spent + answer.items, clock() - begun, point, reused))
        told(looks[-1])
        losses.clear()
        return answer.items

    checked = look()
    spent += checked
    while True:
        # The look at the end is paid for before another step is taken.
        if spent + dear + checked > pace.max_items:
            ended = SPENT
            break
        answer = loss(step, point)
        spent += answer.items
        dear = answer.items
        losses.append(answer.value)
        step += 1
        point = _adam(point, answer.slopes, first, second, step, pace.rate, bounds)
        iterates.append(point)
        if step % pace.check_every == 0:
            spent += look()
            if _stalled(looks, pace.patience):
                ended = DRIFTED
                break
    if looks[-1].step != step:
        look()
    return Walk(tuple(looks), tuple(iterates), ended)


def _stalled(looks: Sequence[Look], patience: int) -> bool:
    best = max(range(len(looks)), key=lambda index: (looks[index].score, -index))
    return len(looks) - 1 - best >= patience


def _adam(
    point: Point,
    slopes: Sequence[float],
    first: list[float],
    second: list[float],
    step: int,
    rate: float,
    bounds: Sequence[Bounds],
) -> Point:
    """One step; the two moments are brought up to date in place."""
    moved = []
    for index, (value, slope, bound) in enumerate(zip(point, slopes, bounds, strict=True)):
        # Measured in the interval's own unit, so that a narrow one is not crossed at once.
        slope *= bound.unit
        first[index] = 0.9 * first[index] + 0.1 * slope
        second[index] = 0.999 * second[index] + 0.001 * slope * slope
        mean, spread = first[index] / (1 - 0.9**step), second[index] / (1 - 0.999**step)
        moved.append(bound.clip(value - rate * bound.unit * mean / (math.sqrt(spread) + 1e-8)))
    return tuple(moved)
