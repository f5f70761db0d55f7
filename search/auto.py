"""`auto`: which strategy fits a study, and why. Rules are tried in order; the first that applies decides."""

from __future__ import annotations

from core.jobs import Budget
from core.space import SearchSpace
from search.unit import Cubes

#: One process per structure is fitted for every proposal, which costs the cube of its results and grows with its
#: parameters: beyond these a device would wait for it.
MOST_PARAMETERS = 32
MOST_STRUCTURES = 48
#: Candidates per parameter that CMA-ES needs before it has learnt anything.
PATIENCE = 10


def choose(space: SearchSpace, parallel: int, budget: Budget) -> tuple[str, str]:
    """The strategy's name and the reason, for the job's page.

    Args:
        space: the compiled search space.
        parallel: candidates under way at once.
        budget: the job's limits.
    """
    structures = Cubes(space).structures
    widest = max(structure.size for structure in structures)
    kinds = f"{len(structures)} structures of" if len(structures) > 1 else ""
    at_once = f", {parallel} candidates at once" if parallel > 1 else ""
    shape = " ".join(filter(None, [kinds, "up to" if kinds else "", f"{widest} parameters"])) + at_once
    if budget.trials is not None and budget.trials <= len(structures):
        return (
            "sobol",
            f"sobol: {budget.trials} candidates are too few to learn from {shape}, so they are spread evenly",
        )
    if widest <= MOST_PARAMETERS and len(structures) <= MOST_STRUCTURES:
        return "gp", f"gp: a surrogate learns {shape} from the fewest items, and hears of stopped candidates"
    if len(structures) == 1 and (budget.trials is None or budget.trials >= PATIENCE * widest):
        return "cmaes", f"cmaes: {shape} are more than the {MOST_PARAMETERS} that a surrogate learns in time"
    limits = f"{MOST_PARAMETERS} parameters or {MOST_STRUCTURES} structures"
    return "tpe", f"tpe: {shape} are more than the {limits} that a surrogate learns in time"
