"""Who goes to the confirmation, and whom they must beat. Decided on search items alone, before held-out is opened.

The highest of many noisy scores is high by luck as well as by merit, so candidates are ranked by what they are likely
to be worth (`posterior`), and that is what is claimed for the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, variance
from typing import NamedTuple

from core.objective import TaskSpec
from core.records import Score, TrialRecord
from core.space import SearchSpace
from core.states import TrialState
from search.past import of_rows
from search.surrogate import posterior_of

#: `TrialRecord.origin` of a model as it is.
PARENT = "parent"


class Estimate(NamedTuple):
    """What a candidate is likely to be worth, on the scale of the scores that were heard: mean and deviation."""

    mean: float
    sd: float


class BelowFloor(NamedTuple):
    """A task on which a candidate loses more than it may, in percentage points against the best parent."""

    task: str
    points: float
    floor: float


def finalists(
    trials: Iterable[TrialRecord], k: int, estimates: Mapping[int, Estimate] | None = None
) -> list[TrialRecord]:
    """The best `k` candidates that were scored on all search items, best first; parents are none.

    Candidates with one recipe digest have the same weights and count once (the earliest). Equals go to the one with
    fewer layers, which is cheaper to serve, then to the earlier one.

    Args:
        trials: of one job.
        k: how many.
        estimates: by the number of the trial; those it leaves out, or all without it, rank by their macro.
    """
    known = estimates or {}

    def rank(trial: TrialRecord) -> tuple[float, int, int]:
        worth = known[trial.number].mean if trial.number in known else trial.macro or 0.0
        return -worth, len(trial.resolved.layers), trial.number

    best: dict[str, TrialRecord] = {}
    for trial in sorted(candidates(trials), key=rank):
        best.setdefault(trial.recipe_digest, trial)
    return list(best.values())[:k]


def candidates(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The candidates that were scored on all search items."""
    return [trial for trial in trials if trial.origin != PARENT and _scored(trial)]


def best_parent(trials: Sequence[TrialRecord]) -> TrialRecord:
    """The parent with the highest macro on search items; among equals the earlier.

    Raises:
        ValueError: no parent has been scored on all search items.
    """
    parents = [trial for trial in trials if trial.origin == PARENT and _scored(trial)]
    if not parents:
        raise ValueError("no parent has been scored on all search items: score the parents before confirming")
    return min(parents, key=lambda trial: (-(trial.macro or 0.0), trial.number))


def posterior(space: SearchSpace, trials: Sequence[TrialRecord]) -> dict[int, Estimate]:
    """What fully scored candidates are likely to be worth, by the number of the trial.

    The surrogate over all scores says, stopped candidates included, whatever strategy proposed them; of candidates
    that it does not know, `shrunk`.
    """
    known = posterior_of(space, of_rows(trials))
    return {number: Estimate(*known.get(number, own)) for number, own in shrunk(trials).items()}


def shrunk(trials: Sequence[TrialRecord]) -> dict[int, Estimate]:
    """Fully scored candidates drawn towards their common mean, the more the noisier they are (empirical Bayes).

    Score i is its worth plus noise of its known variance v_i; worths are normal with the scores' mean m and variance
    t = max(0, variance of the scores - mean of v). The posterior mean is then (t s_i + v_i m) / (t + v_i), its variance
    t v_i / (t + v_i). Fewer than three candidates say nothing of t: they are taken as they are.
    """
    found = {trial.number: told(trial) for trial in candidates(trials)}
    if len(found) < 3:
        return {number: Estimate(score, math.sqrt(noise)) for number, (score, noise) in found.items()}
    scores = [score for score, _ in found.values()]
    centre = fmean(scores)
    spread = max(0.0, variance(scores) - fmean(noise for _, noise in found.values()))
    return {number: _posterior(score, noise, centre, spread) for number, (score, noise) in found.items()}


def optimism(gain: float, variance: float, parameters: int) -> float:
    """By how much a gain over the reference is overrated for having been searched for on the items that tell it.

    A search on N items climbs f + e: the true score, and what these items make of each candidate beside it. Both are
    smooth, so neighbours share e, and averaging over them does not take it away. Where f falls off with curvature H
    from its top, the top of f + e lies H^-1 grad e beside it and e there is tr(H^-1 Cov(grad e)) on average, twice what
    the fit gains (Takeuchi's information criterion, 1976, has the same trace). Were H and Cov(grad e) the same in all
    of d directions, a gain G = H r^2 / 2 at the distance r of the reference, whose difference has the variance
    v = Cov(grad e) r^2, would be overrated by d v / (2 G).

    Args:
        gain: G, of the difference to the reference, as a share.
        variance: v, of that difference's mean over all items.
        parameters: d, real numbers that were searched.

    Returns:
        That; no more than the gain, and 0 where there is none.
    """
    return min(gain, parameters * variance / (2 * gain)) if gain > 0.0 else 0.0


def told(trial: TrialRecord) -> tuple[float, float]:
    """A trial's score as the sampler heard it, with its variance; its macro where nothing else was kept."""
    heard = trial.last_heard
    return (heard.score, heard.variance) if heard else (trial.macro or 0.0, 0.0)


def below_floors(trial: TrialRecord, parent: TrialRecord, tasks: Iterable[TaskSpec]) -> list[BelowFloor]:
    """The tasks on which a candidate loses more against the best parent, on search items, than the job allows."""
    ours, theirs = _by_task(trial.scores), _by_task(parent.scores)
    found = []
    for spec in tasks:
        if spec.floor is not None and spec.task in ours and spec.task in theirs:
            points = 100 * (ours[spec.task].value - theirs[spec.task].value)
            # A loss of exactly the floor is allowed, whatever the last digit of a difference of shares.
            if points < -spec.floor - 1e-9:
                found.append(BelowFloor(spec.task, points, spec.floor))
    return found


def _posterior(score: float, noise: float, centre: float, spread: float) -> Estimate:
    if noise == 0.0:
        return Estimate(score, 0.0)
    return Estimate((spread * score + noise * centre) / (spread + noise), math.sqrt(spread * noise / (spread + noise)))


def _by_task(scores: Iterable[Score]) -> dict[str, Score]:
    return {score.task: score for score in scores}


def _scored(trial: TrialRecord) -> bool:
    return trial.state is TrialState.SCORED and trial.macro is not None
