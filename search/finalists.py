"""Who goes to the confirmation, and whom they must beat. Decided on search items alone, before held-out is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.records import TrialRecord
from core.states import TrialState

#: `TrialRecord.origin` of a model as it is.
PARENT = "parent"


def finalists(trials: Iterable[TrialRecord], k: int) -> list[TrialRecord]:
    """The best `k` candidates that were scored on all search items, best first; parents are none.

    Candidates with one recipe digest have the same weights and count once (the earliest). Equal macros go to the
    one with fewer layers, which is cheaper to serve, then to the earlier one.
    """
    best: dict[str, TrialRecord] = {}
    for trial in sorted((t for t in trials if t.origin != PARENT and _scored(t)), key=_rank):
        best.setdefault(trial.recipe_digest, trial)
    return list(best.values())[:k]


def best_parent(trials: Sequence[TrialRecord]) -> TrialRecord:
    """The parent with the highest macro on search items; among equals the earlier.

    Raises:
        ValueError: no parent has been scored on all search items.
    """
    parents = [trial for trial in trials if trial.origin == PARENT and _scored(trial)]
    if not parents:
        raise ValueError("no parent has been scored on all search items: score the parents before confirming")
    return min(parents, key=_rank)


def _scored(trial: TrialRecord) -> bool:
    return trial.state is TrialState.SCORED and trial.macro is not None


def _rank(trial: TrialRecord) -> tuple[float, int, int]:
    return -(trial.macro or 0.0), len(trial.resolved.layers), trial.number
