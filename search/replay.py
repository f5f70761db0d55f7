"""Samplers that work in generations, rebuilt from a study's trials: nothing about them is stored.

A draw is a pure function of a generation's state and of the normal numbers that belong to a trial's number. So a state
is rebuilt by asking of each trial, in order of numbers, whether the state draws its values: if so, it is one of the
generation. The first `size` of them make the next generation, once all of them have finished. No worker waits for that:
who asks meanwhile gets further draws from the same distribution, which count as candidates but teach the state nothing.
Trials that no state draws (enqueued ones, say) are left out.

The state does not depend on the order in which candidates finish, and a restart or another process changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.params import ChoiceParam, Scalar
from core.space import Hole, SearchSpace
from search.past import Past
from search.seeding import entropy

Floats = NDArray[np.float64]
State = TypeVar("State")

#: Two values are the same draw if they differ by less than this share of the searched interval.
SAME = 1e-7


@lru_cache(maxsize=8192)
def normals(seed: int, number: int, size: int) -> Floats:
    """(size,) the standard normal numbers that belong to a trial of a study."""
    return np.random.default_rng(entropy(seed, number)).standard_normal(size)


class Rules(Protocol[State]):
    """A strategy's part.

    Its states are immutable; the losses it is given are minus the scores, and infinite for failures.
    """

    def size(self, state: State) -> int:
        """Draws that make a generation."""

    def draw(self, state: State, number: int) -> Mapping[str, Scalar]:
        """The values of a trial."""

    def after(self, state: State, members: list[int], losses: list[float]) -> State:
        """The next generation, from the numbers of this one's members."""


@dataclass(slots=True)
class Generation(Generic[State]):
    """A state with the first of its draws."""

    state: State
    members: list[Past] = field(default_factory=list)


def replay(rules: Rules[State], start: State, pasts: Iterable[Past], space: SearchSpace) -> State:
    """The state from which the next trial is drawn.

    Args:
        pasts: the trials so far, by number, without the one that is asked for.
    """
    current, losses = Generation(start), _Losses()
    for past in pasts:
        losses.see(past)
        if _same(rules.draw(current.state, past.number), past.values, space):
            if len(current.members) < rules.size(current.state):
                current.members.append(past)
            continue
        following = _next(rules, current, losses)
        if following is not None and _same(rules.draw(following, past.number), past.values, space):
            current = Generation(following, [past])
    following = _next(rules, current, losses)
    return current.state if following is None else following


def _next(rules: Rules[State], current: Generation[State], losses: _Losses) -> State | None:
    """The state after a generation that is complete, else None."""
    if len(current.members) < rules.size(current.state):
        return None
    found = [losses.of(member) for member in current.members]
    if any(loss is None for loss in found):
        return None
    return rules.after(current.state, [m.number for m in current.members], [loss for loss in found if loss is not None])


class _Losses:
    """Losses by values: a proposal that was closed because it repeats another has the other's."""

    def __init__(self) -> None:
        self._first: dict[tuple[tuple[str, Scalar], ...], Past] = {}

    def see(self, past: Past) -> None:
        self._first.setdefault(_key(past), past)

    def of(self, past: Past) -> float | None:
        """Minus the score; infinite for a failure; None while it is running."""
        first = self._first[_key(past)]
        if first.state == "failed":
            return np.inf
        return -first.score if first.score is not None else None


def _key(past: Past) -> tuple[tuple[str, Scalar], ...]:
    return tuple(sorted(past.values.items()))


def _same(drawn: Mapping[str, Scalar], told: Mapping[str, Scalar], space: SearchSpace) -> bool:
    if drawn.keys() != told.keys():
        return False
    return all(_close(drawn[hole.name], told[hole.name], hole) for hole in space.holes if hole.name in drawn)


def _close(one: Scalar, other: Scalar, hole: Hole) -> bool:
    if isinstance(hole.spec, ChoiceParam) or isinstance(one, str) or isinstance(other, str):
        return type(one) is type(other) and one == other
    return abs(one - other) <= SAME * (hole.spec.search_high - hole.spec.search_low)
