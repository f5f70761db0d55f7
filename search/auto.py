"""`auto`: which strategy fits a study, and why. Rules are tried in order; the first that applies decides."""

from __future__ import annotations

from core.jobs import Budget
from core.space import SearchSpace


def choose(space: SearchSpace, parallel: int, budget: Budget) -> tuple[str, str]:
    """The strategy's name and the reason, for the job's page.

    Args:
        space: the compiled search space.
        parallel: candidates under way at once.
        budget: the job's limits.
    """
    conditional = sum(bool(hole.when) for hole in space.holes)
    shape = f"{len(space.holes)} parameters, {conditional} of them conditional"
    under_way = f", {parallel} candidates at once" if parallel > 1 else ""
    return "tpe", f"tpe: it handles {shape}{under_way}, and hears of stopped candidates"
