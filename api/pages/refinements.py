"""Gradient refinements on a job's page: how each goes, by its loss and by its score on items kept back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from markupsafe import Markup

from api import svg
from core.records import StepKind, StepRecord
from core.refinement import PROGRESS
from core.states import StepState
from store import events, steps
from store.session import ReadSession

#: What a refinement moves, by its granularity.
MOVED = {"holes": "the values of the space", "tensor": "every tensor by itself"}


@dataclass(frozen=True, slots=True)
class Way:
    """One refinement so far.

    Attributes:
        number: of the candidate that it began from.
        moved: what it moves.
        state: of its step.
        items: spent on it so far.
        allowed: that it may spend.
        losses: (items, loss) on the minibatches before each look.
        scores: (items, share) right on kept-back items, at each look.
        ended: why it ended; empty before.
    """

    number: int
    moved: str
    state: StepState
    items: int
    allowed: int
    losses: tuple[tuple[float, float], ...]
    scores: tuple[tuple[float, float], ...]
    ended: str

    @property
    def best(self) -> tuple[float, float] | None:
        """The highest score on kept-back items, with the items spent until then; the earliest of equals."""
        return max(self.scores, key=lambda look: (look[1], -look[0]), default=None)


def told(s: ReadSession, job_id: str) -> list[Way]:
    """All refinements of a job, in the order in which they were begun."""
    looks = [event.payload for event in events.of_kind(s, job_id, PROGRESS)]
    by_step = {id: list(group) for id, group in groupby(sorted(looks, key=_step), key=_step)}
    return [_way(step, by_step.get(step.id, [])) for step in steps.of_job(s, job_id, kinds=(StepKind.REFINE,))]


_step = itemgetter("step_id")


def _way(step: StepRecord, looks: list[dict[str, Any]]) -> Way:
    # A refinement that was interrupted begins anew and tells its looks again: the last word counts.
    last = {int(look["step"]): look for look in looks}
    ordered = [last[at] for at in sorted(last)]
    return Way(
        number=int(step.payload["number"]),
        moved=MOVED[step.payload["granularity"]],
        state=step.state,
        items=int(ordered[-1]["items"]) if ordered else 0,
        allowed=int(step.payload["max_items"]),
        losses=tuple((float(look["items"]), float(look["loss"])) for look in ordered if look["loss"] is not None),
        scores=tuple((float(look["items"]), float(look["score"])) for look in ordered),
        ended=str((step.result or {}).get("ended", "")),
    )


def pictures(way: Way) -> list[tuple[str, Markup]]:
    """Its score and its loss, each under a heading; what has not been told yet is left out."""
    end = float(way.allowed)
    drawn = [
        ("Score on kept-back items", svg.curve(way.scores, (), end=end, unit="items", stepped=False, width=420)),
        ("Loss", svg.curve(way.losses, (), end=end, unit="items", stepped=False, shares=False, width=420)),
    ]
    return [(title, picture) for title, picture in drawn if picture]
