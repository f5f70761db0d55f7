"""What a verdict comes with: the claim before the proof, floors of single tasks, contamination, and the last look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.objective import TaskSpec
from core.outcomes import Outcomes
from core.records import TrialBrief, TrialRecord
from core.selection import selection
from core.statistics import floor_test, macro_difference, paired_difference
from search.finalists import Estimate, below_floors, candidates, optimism

#: Candidates below a floor that are named; more of them say nothing new.
NAMED = 10
#: Candidates whose answers are compared to tell what choosing the best of them gains by chance.
COMPARED = 64


def claims(
    ranked: Sequence[TrialRecord], estimates: Mapping[int, Estimate] | None, reference: TrialBrief | None
) -> dict[str, dict[str, Any]]:
    """What each finalist is said to be worth before it is proved, in points of accuracy, by trial.

    Estimates are of smoothed scores. A difference of two of them stands for one of accuracies, so the claim is the
    reference's accuracy and the estimated difference to it, less what such a search overrates (`optimism`, told
    beside). Without estimates the best score ever seen is claimed.
    """
    shift = 0.0
    if estimates and reference is not None and reference.macro is not None and reference.heard:
        shift = reference.macro - reference.heard[-1].score
    found = {}
    for trial in ranked:
        worth = (estimates or {}).get(trial.number, Estimate((trial.macro or 0.0) - shift, 0.0))
        overrated = _overrated(trial, worth, reference) if estimates else 0.0
        found[trial.id] = {
            "points": 100 * (worth.mean + shift - overrated),
            "sd": 100 * worth.sd,
            "optimism": 100 * overrated,
            "by": "posterior mean" if estimates else "best score",
        }
    return found


def _overrated(trial: TrialRecord, worth: Estimate, reference: TrialBrief | None) -> float:
    """The optimism of a candidate of the space; values by tensor are not reckoned."""
    if reference is None or not reference.heard or not trial.values:
        return 0.0
    numbers = sum(isinstance(value, float) for value in trial.values.values())
    variance = trial.last_heard.variance if trial.last_heard else 0.0
    return optimism(worth.mean - reference.heard[-1].score, variance, numbers)


def split_by_floors(
    every: Sequence[TrialRecord], parent: TrialRecord, tasks: Sequence[TaskSpec]
) -> tuple[list[TrialRecord], list[dict[str, Any]]]:
    """The fully scored candidates that keep every floor, and of the others the best and what they lose."""
    kept, below = [], []
    for trial in sorted(candidates(every), key=lambda trial: (-(trial.macro or 0.0), trial.number)):
        broken = below_floors(trial, parent, tasks)
        if broken:
            below.append({"trial_id": trial.id, "number": trial.number, "tasks": [loss._asdict() for loss in broken]})
        else:
            kept.append(trial)
    return kept, below[:NAMED]


def floors(
    winner: Sequence[Outcomes], reference: Sequence[Outcomes], tasks: Sequence[TaskSpec]
) -> list[dict[str, Any]]:
    """The floors of single tasks on held-out items, one-sided, each by itself."""
    found = []
    for ours, theirs, spec in zip(winner, reference, tasks, strict=True):
        if spec.floor is not None:
            test = floor_test(paired_difference(ours, theirs), spec.floor)
            found.append(
                {
                    "task": spec.task,
                    "floor": spec.floor,
                    "points": test.points,
                    "low": test.low,
                    "p": test.p_one_sided,
                    "kept": test.kept,
                }
            )
    return found


def contamination(parents: Sequence[TrialRecord], shares: Sequence[float]) -> list[dict[str, Any]]:
    """How much better each parent answers search items than held-out ones, in points, with the standard error.

    Items are split at random, so a gap far beyond its error says that something saw the one side and not the other.
    A search cannot have caused it: parents are not chosen by their answers.
    """
    found = []
    for parent in parents:
        if parent.macro is None or parent.macro_heldout is None:
            continue
        sides = zip(shares, parent.scores, parent.heldout, strict=True)
        error = math.sqrt(math.fsum(share**2 * (seen.stderr**2 + held.stderr**2) for share, seen, held in sides))
        found.append(
            {
                "trial_id": parent.id,
                "label": parent.label,
                "search": parent.macro,
                "heldout": parent.macro_heldout,
                "gap": 100 * (parent.macro - parent.macro_heldout),
                "stderr": 100 * error,
            }
        )
    return found


def chance(
    candidates: Sequence[Sequence[Outcomes]], reference: Sequence[Outcomes], shares: Sequence[float], tried: int
) -> dict[str, Any] | None:
    """What the best of `tried` candidates gains by chance alone on search items; None where nobody was scored in full.

    Args:
        candidates: task by task on all search items, those that were scored in full.
        reference: the best parent on the same items.
    """
    items = [have.numbers for have in reference]
    candidates = [candidate for candidate in candidates if [have.numbers for have in candidate] == items]
    if not candidates or not all(items):
        return None
    differences = [
        [
            [a - b for a, b in zip(ours.correct, theirs.correct, strict=True)]
            for ours, theirs in zip(candidate, reference, strict=True)
        ]
        for candidate in candidates
    ]
    return selection(differences, shares, tried).model_dump(mode="json")


def beyond(
    winner: Sequence[Outcomes], reference: Sequence[Outcomes], tasks: Sequence[TaskSpec]
) -> list[dict[str, Any]]:
    """The winner against the best parent on tasks that the search never read, each by itself."""
    found = []
    for ours, theirs, spec in zip(winner, reference, tasks, strict=True):
        pair = paired_difference(ours, theirs)
        each = macro_difference([pair], (1.0,))
        found.append(
            {
                "task": spec.task,
                "metric": spec.metric_name,
                "winner": math.fsum(ours.correct) / len(ours.correct),
                "reference": math.fsum(theirs.correct) / len(theirs.correct),
                "points": each.points,
                "low": each.low,
                "high": each.high,
                "items": pair.n,
            }
        )
    return found


def last_look(winner: Sequence[Outcomes], reference: Sequence[Outcomes], shares: Sequence[float]) -> dict[str, Any]:
    """The winner against the best parent on what was kept back of the held-out items."""
    pairs = [paired_difference(ours, theirs) for ours, theirs in zip(winner, reference, strict=True)]
    macro = macro_difference(pairs, shares)
    return {
        "points": macro.points,
        "low": macro.low,
        "high": macro.high,
        "p": macro.p_one_sided,
        "items": sum(pair.n for pair in pairs),
    }
