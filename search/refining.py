"""Which candidates are worth a refinement, and what it may cost. Pure.

A refinement moves the smooth values of one structure (a method with all its choices) and leaves the choice between
structures to the race. So it starts from the best candidate of each of the best few structures, judged on the first
rung, where all of them were scored on the same items.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from core.jobs import Budget
from core.noun import canonical_json
from core.params import FloatParam, Scalar
from core.refinement import Refine, allowance, asked
from core.smooth import smooth_holes
from core.space import SearchSpace
from search.seeding import entropy

Granularity = Literal["holes", "tensor"]

#: Spread of the candidates around a refined one, as a share of each interval.
SPREAD = 0.04


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate that was scored on the first rung.

    Attributes:
        trial: its id.
        values: one per active hole.
        score: on the first rung.
    """

    trial: str
    values: Mapping[str, Scalar]
    score: float


class Start(NamedTuple):
    """A refinement to be begun."""

    candidate: Candidate
    structure: str
    granularity: Granularity
    max_items: int


def structure_of(space: SearchSpace, values: Mapping[str, Scalar]) -> str:
    """What a refinement leaves as it is and names a structure by: every choice and whole number."""
    return canonical_json(
        {hole.name: values[hole.name] for hole in space.active(values) if not isinstance(hole.spec, FloatParam)}
    )


def starts(
    space: SearchSpace,
    candidates: Sequence[Candidate],
    begun: Collection[tuple[str, Granularity]],
    refine: Refine,
    budget: Budget,
    *,
    fine_leads: bool | None = None,
) -> list[Start]:
    """The refinements to begin now.

    Args:
        space: the compiled search space.
        candidates: all that were scored on the first rung.
        begun: the refinements of this study so far.
        refine: the job's rules.
        budget: the job's limits.
        fine_leads: whether values by tensor turned out better than every candidate of the space; None until that is
            known. Where they are not, `both` refines that structure by hole as well.
    """
    best: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda each: (-each.score, each.trial)):
        if smooth_holes(space, candidate.values):
            best.setdefault(structure_of(space, candidate.values), candidate)
    ranked = list(best)[: refine.structures]
    wanted = _wanted(ranked, begun, refine.granularity, again=fine_leads is False)
    wished = max(1, asked(refine, len(ranked)))
    each, most = allowance(refine, budget.trials, budget.item_evaluations, wished)
    left = max(0, min(most, asked(refine, refine.structures)) - len(begun))
    new = [way for way in wanted if way not in begun]
    return [Start(best[name], name, grain, each) for name, grain in new[:left]]


def _wanted(
    ranked: Sequence[str], begun: Collection[tuple[str, Granularity]], granularity: str, *, again: bool
) -> list[tuple[str, Granularity]]:
    """Structures and how they are refined, the best first.

    By tensor a walk takes as many items as by hole and comes further, so under `both` the best structure is walked by
    tensor, and `again` by hole only where that came to nothing.
    """
    if granularity == "holes":
        return [(name, "holes") for name in ranked]
    if granularity == "tensor":
        return [(name, "tensor") for name in ranked]
    fine = next((name for name, grain in begun if grain == "tensor"), next(iter(ranked), ""))
    wanted: list[tuple[str, Granularity]] = [(name, "tensor" if name == fine else "holes") for name in ranked]
    return [*wanted, (fine, "holes")] if again and fine in ranked else wanted


def around(space: SearchSpace, values: Mapping[str, Scalar], count: int, seed: int) -> list[dict[str, Scalar]]:
    """Candidates near a refined one: normal steps in its smooth values, inside the searched intervals.

    The cross-entropy's minimum is not the accuracy's maximum; a few candidates around it, raced, find the difference.
    """
    holes, found = smooth_holes(space, values), list[dict[str, Scalar]]()
    for number in range(count):
        draw, near = random.Random(repr(("polish", *entropy(seed, number)))), dict(values)
        for hole in holes:
            assert isinstance(hole.spec, FloatParam)
            low, high = hole.spec.search_low, hole.spec.search_high
            moved = float(values[hole.name]) + draw.gauss(0.0, SPREAD * (high - low))
            near[hole.name] = round(min(max(moved, low), high), 6)
        if holes:
            space.check(near)
            found.append(near)
    return found
