"""The rungs of a race, settled once it is known what building a candidate costs beside scoring it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from core.records import StepKind, StepRecord, TrialBrief
from core.rungs import adapted, items_of
from search.finalists import PARENT
from store import events, steps
from store.session import Session
from workers.phases.study import RUNGS, Search


def settle(session: Session, search: Search, every: Sequence[TrialBrief]) -> Search:
    """The search with the rungs that will stay, which are written down before the first decision that needs them."""
    counts = [len(order) for order in search.orders]
    kappa = build_cost(steps.of_job(session, search.job.id, kinds=(StepKind.RUN_TRIAL,)), every)
    rungs, why = search.rungs, "as the job asks"
    if search.job.request.racing.rungs is None:
        rungs, why = search.rungs, "the cost of a build is not known: nothing was scored afresh"
        if kappa is not None:
            rungs = adapted(search.rungs, counts, kappa)
            why = f"scoring the first, {items_of(rungs[0], counts)} items, takes at least a third of a build"
    shown = None if kappa is None else round(kappa, 1)
    events.append(session, search.job.id, RUNGS, {"kappa": shown, "rungs": list(rungs), "reason": why})
    return search.with_rungs(rungs)


def build_cost(done: Sequence[StepRecord], every: Sequence[TrialBrief]) -> float | None:
    """What building a candidate costs, in items: median seconds of a build over mean seconds of an item.

    Parents say how long scoring takes, and no build is measured on them: theirs is a copy of what is loaded.

    Returns:
        None where no candidate was built, or no item scored.
    """
    parents = {trial.id for trial in every if trial.origin == PARENT}
    results = [(step.trial_id in parents, step.result) for step in done if step.result]
    builds = [float(result["build_seconds"]) for parent, result in results if not parent and "build_seconds" in result]
    items = sum(int(result.get("items", 0)) for _, result in results)
    seconds = math.fsum(float(result.get("score_seconds", 0.0)) for _, result in results)
    return median(builds) * items / seconds if builds and items and seconds else None
