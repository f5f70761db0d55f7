"""The elite of a search: those of its candidates that a generator of weights can learn from."""

from __future__ import annotations

from collections.abc import Iterable

from core.model import Model
from core.records import TrialRecord


def elite(every: Iterable[TrialRecord], base: Model, top: int) -> list[TrialRecord]:
    """The candidates scored on most items, the best of these first, each recipe once.

    Only those that are built like the base: of its architecture, with its number of layers.

    Args:
        every: trials of a search.
        base: of the generator.
        top: how many at most.
    """
    best: dict[str, TrialRecord] = {}
    for trial in sorted(every, key=lambda t: (-t.scored_items, -(t.macro or 0.0), t.number)):
        resolved = trial.resolved
        alike = resolved.model_type == base.header.model_type and len(resolved.layers) == base.header.layers
        if alike and trial.macro is not None and trial.origin != "parent":
            best.setdefault(trial.recipe_digest, trial)
    return list(best.values())[:top]
