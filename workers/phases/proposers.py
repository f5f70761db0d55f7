"""Studies kept warm: opening one costs seconds once it holds thousands of trials."""

from __future__ import annotations

from core.jobs import SearchJob
from core.records import JobRecord
from core.settings import Settings
from core.space import SearchSpace
from search.auto import choose
from search.study import Proposer, storage_url
from store import events, trials
from store.session import Session

_warm: dict[str, Proposer] = {}

#: More studies than this are rarely active at once; the oldest is let go.
_KEPT = 8


def of(session: Session, settings: Settings, job: JobRecord, space: SearchSpace) -> Proposer:
    """The job's proposer; a study that Optuna's tables have lost is rebuilt from our rows."""
    if job.id not in _warm:
        while len(_warm) >= _KEPT:
            forget(next(iter(_warm)))
        _warm[job.id] = _open(session, settings, job, space)
    return _warm[job.id]


def forget(job_id: str) -> None:
    """Let a job's study go, with its connections; whoever needs it again opens it anew."""
    proposer = _warm.pop(job_id, None)
    if proposer is not None:
        proposer.close()


def strategy_of(request: SearchJob, space: SearchSpace) -> tuple[str, str]:
    """The strategy in force and why."""
    if request.strategy.name != "auto":
        return request.strategy.name, "asked for"
    return choose(space, request.parallel, request.budget)


def _open(session: Session, settings: Settings, job: JobRecord, space: SearchSpace) -> Proposer:
    name, reason = strategy_of(job.request, space)
    assert settings.database_url is not None
    proposer = Proposer(
        space,
        name,
        storage=storage_url(settings.database_url),
        study_name=job.id,
        seed=job.request.seed,
        params=job.request.strategy.params,
    )
    rows = [trial for trial in trials.of_job(session, job.id) if trial.optuna_number is not None]
    proposer.recover(rows)
    if not events.of_kind(session, job.id, "strategy"):
        events.append(session, job.id, "strategy", {"name": name, "reason": reason})
    return proposer
