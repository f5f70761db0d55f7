"""The race among a job's parents, rung by rung: whoever is told apart from the best of them is read no further."""

from __future__ import annotations

from collections.abc import Sequence

from core.outcomes import Outcomes
from core.records import TrialBrief
from core.states import TrialState
from search.finalists import PARENT
from search.parents import leader_of, told_apart
from store import events, trials
from store.session import ReadSession, Session
from workers.phases.history import results
from workers.phases.judging import under_way
from workers.phases.study import Search

#: Event: parents that were found worse than another after so many items per task.
TOLD_APART = "parents_told_apart"


def contest(session: Session, search: Search, every: Sequence[TrialBrief], reference: TrialBrief | None) -> bool:
    """The word on the parents, once all that are left have been scored as far as one another; whether any changed.

    Args:
        session: a transaction.
        search: the job.
        every: all its trials.
        reference: the one that others are compared with. A parent that is it goes on to the end.
    """
    left = [trial for trial in every if trial.origin == PARENT and not trial.state.final]
    if not left or any(trial.state is not TrialState.WAITING or under_way(trial) for trial in left):
        return False
    items = min(trial.scored_items for trial in left)
    if items >= search.whole:
        for trial in left:
            trials.move(session, trial.id, TrialState.SCORED)
        return True
    out = _out(session, search, left, items) - ({reference.id} if reference else set())
    rung = next(rung for rung, size in enumerate(search.rungs) if size > items)
    for trial in left:
        if trial.id in out:
            trials.move(session, trial.id, TrialState.STOPPED)
        elif trial.scored_items == items:
            trials.raise_target(session, trial.id, search.rungs[rung], rung, search.device)
    return True


def _out(session: Session, search: Search, left: Sequence[TrialBrief], items: int) -> set[str]:
    """Ids of the parents that are worse than another, which is told in an event."""
    answers = {trial.id: _answers(session, search, trial, items) for trial in left}
    shares = search.job.request.objective.shares
    behind = told_apart(answers, shares)
    if behind:
        names = {trial.id: trial.label for trial in left}
        worse = [trial.label for trial in left if trial.id in behind]
        payload = {"items": items, "leader": names[leader_of(answers, shares)], "behind": worse}
        events.append(session, search.job.id, TOLD_APART, payload)
    return behind


def _answers(session: ReadSession, search: Search, trial: TrialBrief, items: int) -> list[Outcomes]:
    """What a parent answered on the first items of every task, numbered along the study's order."""
    found = results(session, search, trial.recipe_digest, items)
    return [
        Outcomes(tuple(range(len(right))), tuple(map(int, right)), tuple(map(float, margins)))
        for right, margins in zip(found.correct, found.margins, strict=True)
    ]
