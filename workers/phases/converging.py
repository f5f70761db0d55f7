"""The end of a search for lack of expected improvement."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.records import JobRecord, TrialBrief
from core.states import TrialState
from search.study import Proposer
from search.surrogate import expected_improvement
from store import events, generators, steps
from store.session import ReadSession, Session
from workers.phases.study import Search

#: Event: the best place left to try promises less than the budget asks for.
CONVERGED = "converged"
#: Event: the space holds nothing new.
USED_UP = "space_used_up"
#: Before so many candidates were scored in full, and so many were scored at all, the surrogate is not asked.
SCORED, HEARD = 5, 20

#: Results at which a job's surrogate was asked last: nothing new, no new answer.
_asked: dict[str, int] = {}
_KEPT = 64


def noted(session: ReadSession, job: JobRecord) -> bool:
    """Whether it was found that less is left than the budget in force asks for."""
    limit = job.request.budget.expected_improvement
    if limit is None:
        return False
    told, since = events.of_kind(session, job.id, CONVERGED), _since(session, job)
    return any(event.payload["expected_improvement"] < limit for event in told if event.id > since)


def nothing_new(session: ReadSession, job: JobRecord) -> bool:
    """Whether nothing is left to propose: the space is used up, or too little is expected of the rest.

    What was said of a space that has grown since does not count.
    """
    told, since = events.of_kind(session, job.id, USED_UP), _since(session, job)
    return any(event.id > since for event in told) or noted(session, job)


def _since(session: ReadSession, job: JobRecord) -> int:
    """The id of the event with which the space grew; 0 before that."""
    grown = generators.ready(session, job)
    return 0 if grown is None else grown.id


def reached(session: Session, search: Search, proposer: Proposer, every: Sequence[TrialBrief]) -> bool:
    """Whether nothing more is to be proposed, as too little improvement is expected of it; told in an event, once."""
    job, limit = search.job, search.job.request.budget.expected_improvement
    if limit is None or noted(session, job):
        return limit is not None
    states = [trial.state for trial in every if trial.optuna_number is not None and trial.heard]
    scored, heard = states.count(TrialState.SCORED), len(states)
    if scored < SCORED or heard < HEARD or _asked.get(job.id) == heard:
        return False
    _remember(job.id, heard)
    points = 100.0 * expected_improvement(search.space, proposer.past())
    if not (math.isfinite(points) and points < limit):
        return False
    payload = {"expected_improvement": points, "limit": limit, "scored": scored, "heard": heard}
    events.append(session, job.id, CONVERGED, payload)
    steps.ensure_advance(session, job.id)
    return True


def _remember(job_id: str, heard: int) -> None:
    while len(_asked) >= _KEPT and job_id not in _asked:
        del _asked[next(iter(_asked))]
    _asked[job_id] = heard
