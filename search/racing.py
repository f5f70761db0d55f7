"""Racing: after each rung a candidate is raised to the next, stopped, or has finished. Pure.

Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv 1810.05934):
a candidate goes on if it is among the best 1/eta of all that have reached its rung so far; nobody waits for a cohort.

Differs from the paper:

- The paper parks whoever is not (yet) promotable and may promote it when more rivals have arrived. Here the decision
  is made once and stopping is final, so that the sampler hears of it at once; whoever deserves another chance comes
  back as a new trial, which costs only its missing items.
- While fewer than eta candidates (it included) have been seen at a rung, all are raised: a share of 1/eta is not
  defined yet, and the first candidates, the known good starts among them, must not be judged by one or two rivals.
- A tie at the cut is settled in the candidate's favour: on few items equal scores are common and mean nothing.

All scores at a rung are taken over the same items, the first of the study's one order, so a comparison is paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Decision(StrEnum):
    """What happens to a candidate after a rung."""

    RAISE = "raise"
    STOP = "stop"
    FINISH = "finish"


class Standing(NamedTuple):
    """A score at a rung (an index into the rungs). A candidate has one standing per rung it has passed."""

    rung: int
    score: float


def beaten(passed: int, rungs: Sequence[int]) -> list[Standing]:
    """The standings of a parent that is out, at the rungs that it did not reach: behind everybody.

    It counts there as if it had been read on: how many go on must not depend on how soon it was told apart.

    Args:
        passed: rungs that it has passed.
        rungs: items per task at each rung.
    """
    return [Standing(rung, -math.inf) for rung in range(passed, len(rungs))]


def raised_unheard(seen: int, eta: int) -> bool:
    """Whether a candidate goes on whatever its score, `seen` (it included) having reached its rung."""
    return seen < eta


def decide(
    trial: Standing,
    rivals: Sequence[Standing],
    rungs: Sequence[int],
    eta: int,
    *,
    reference: bool = False,
) -> Decision:
    """The word on a candidate that has been scored at `trial.rung`.

    Args:
        trial: its standing there.
        rivals: standings of all others at any rung, parents included (they are scored anyway, and a candidate below
            them is not worth its items); those at other rungs are ignored.
        rungs: items per task at each rung.
        eta: the share that goes on is 1/eta.
        reference: a parent or another reference, which always runs to the last rung.

    Raises:
        ValueError: the rung does not exist.
    """
    if not 0 <= trial.rung < len(rungs):
        raise ValueError(f"rung {trial.rung!r} does not exist: there are {len(rungs)}, counted from 0")
    if trial.rung == len(rungs) - 1:
        return Decision.FINISH
    scores = [rival.score for rival in rivals if rival.rung == trial.rung]
    seen = len(scores) + 1
    better = sum(score > trial.score for score in scores)
    raised = reference or raised_unheard(seen, eta) or better < seen // eta
    return Decision.RAISE if raised else Decision.STOP
