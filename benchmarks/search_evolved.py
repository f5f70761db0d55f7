"""The baseline of a live comparison: mergekit-evolve's search on real merges, every candidate on every search item."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

import numpy as np

from benchmarks.search_nursery import Floats, Nursery
from core.params import Scalar
from core.space import SearchSpace
from search.study import Proposer

STRATEGY = "mergekit-evolve"
#: Full evaluations after which the search might have ended; the last is where it does.
CHECKPOINTS = (5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Found:
    """What a search would return if it ended here.

    Attributes:
        held_out: macro accuracy of that on held-out items, in %.
        claimed: what the search believes of it, in %.
        items: item evaluations up to here.
        seconds: of one processor up to here; looks at held-out items are no part of it.
        answers: which held-out items it has right, task after task, as packed bits in hexadecimal digits.
    """

    held_out: float
    claimed: float
    items: int
    seconds: float
    answers: str

    @classmethod
    def of(cls, margins: Floats, claimed: float, items: int, seconds: float) -> Self:
        """From (tasks, items) margins on held-out items, and from shares of 1."""
        right = margins > 0
        return cls(100 * float(right.mean()), 100 * claimed, items, seconds, np.packbits(right).tobytes().hex())


def evolved(nursery: Nursery, seed: int, checkpoints: tuple[int, ...] = CHECKPOINTS) -> list[Found]:
    """What the search would return at every checkpoint: the candidate with the best score ever seen."""
    space = nursery.space("task_arithmetic")
    proposer = Proposer(space, STRATEGY, study_name="evolve", seed=seed)
    per_candidate = nursery.full("search")
    seconds, best, found = 0.0, (-1.0, dict[str, Scalar]()), list[Found]()
    seen: dict[tuple[tuple[str, Scalar], ...], Floats] = {}
    for evaluations in range(1, checkpoints[-1] + 1):
        begun = time.process_time()
        best = _step(nursery, space, proposer, best)
        seconds += time.process_time() - begun
        if evaluations in checkpoints:
            name = tuple(sorted(best[1].items()))
            if name not in seen:
                seen[name] = nursery.of_values(space, best[1], "heldout")
            found.append(Found.of(seen[name], best[0], evaluations * per_candidate, seconds))
    return found


def _step(
    nursery: Nursery, space: SearchSpace, proposer: Proposer, best: tuple[float, dict[str, Scalar]]
) -> tuple[float, dict[str, Scalar]]:
    """One more candidate; the best so far."""
    proposal = proposer.ask()
    score = float((nursery.of_values(space, proposal.values, "search") > 0).mean())
    proposer.tell_scored(proposal.number, score, items=nursery.full("search"))
    return (score, dict(proposal.values)) if score > best[0] else best
