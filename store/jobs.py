"""Jobs: their states, their end, and what they fix once for all their trials."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import ConflictError
from core.jobs import Budget, GeneratorJob, SearchJob
from core.records import Failure, JobRecord, new_id
from core.states import JobState, StepState, TrialState, sources_of
from store import events, rows, steps
from store.page import Page, newest_first
from store.session import ReadSession, Session
from store.tables import jobs, trials
from store.tables import steps as step_rows

_MOVABLE = frozenset({"verdict", "failure", "contents", "fingerprints"})
_ALIVE = tuple(state for state in JobState if not state.final)
_KEPT = (*_ALIVE, JobState.SUCCEEDED)
#: States of a job whose held-out items nobody has opened for it yet.
_SEARCHING = (JobState.QUEUED, JobState.PREPARING, JobState.RUNNING, JobState.PAUSED)


def create(
    s: Session, request: SearchJob | GeneratorJob, *, idempotency_key: str | None = None
) -> tuple[JobRecord, bool]:
    """Create a job with its first `advance` step; or return the job that this key created, and False.

    Raises:
        ConflictError: the key created a job from another request.
    """
    values = {
        "id": new_id("job"),
        "kind": request.kind,
        "name": request.name,
        "state": JobState.QUEUED.value,
        "request": request.model_dump(mode="json"),
        "request_digest": request.digest(),
        "idempotency_key": idempotency_key,
    }
    statement = insert(jobs).values(values).on_conflict_do_nothing(index_elements=["idempotency_key"])
    row = s.execute(statement.returning(*rows.columns(jobs, JobRecord))).one_or_none()
    if row is None:
        return _former(s, request, str(idempotency_key)), False
    job = rows.build(JobRecord, row)
    events.append(s, job.id, "job_state", {"state": job.state.value})
    steps.ensure_advance(s, job.id)
    return job, True


def _former(s: Session, request: SearchJob | GeneratorJob, key: str) -> JobRecord:
    query = select(jobs.c.id, jobs.c.request_digest).where(jobs.c.idempotency_key == key)
    found = s.execute(query).one()
    if found.request_digest != request.digest():
        raise ConflictError(
            f"an idempotency key stands for one request, but {key!r} created {found.id!r} from another: take a new key",
            where="idempotency_key",
        )
    return get(s, found.id)


def get(s: ReadSession, id: str) -> JobRecord:
    """One job.

    Raises:
        NotFoundError: no such job.
    """
    return rows.get(s, jobs, JobRecord, id)


def page(s: ReadSession, limit: int, cursor: str | None = None, state: JobState | None = None) -> Page[JobRecord]:
    """Jobs, newest first, all or those in one state."""
    query = rows.query(jobs, JobRecord)
    if state is not None:
        query = query.where(jobs.c.state == state.value)
    return newest_first(s, query, jobs, limit, cursor, lambda row: rows.build(JobRecord, row))


def move(s: Session, id: str, target: JobState, **fields: Any) -> JobRecord:
    """Move a job. What is left of it ends with it: see `_end`.

    Args:
        fields: new values of `verdict`, `failure`, `contents`, `fingerprints`, as JSON or nouns.

    Raises:
        NotFoundError: no such job.
        ConflictError: no such move from its state.
        ValueError: a field that no move may set.
    """
    return _move(s, id, sources_of(target), target, f"become {target}", fields)


def cancel(s: Session, id: str) -> JobRecord:
    """Cancel a job with all its unfinished trials and steps; holders of steps learn it by heartbeat.

    Cancelling a cancelled job changes nothing.

    Raises:
        NotFoundError: no such job.
        ConflictError: it ended otherwise.
    """
    rows.lock_job(s, id)
    job = get(s, id)
    return job if job.state is JobState.CANCELLED else move(s, id, JobState.CANCELLED)


def fail(s: Session, id: str, failure: Failure) -> JobRecord:
    """Let a job fail, ending it like `cancel`; a step that this transaction guards stays with its holder.

    Raises:
        NotFoundError: no such job.
        ConflictError: it has ended.
    """
    return move(s, id, JobState.FAILED, failure=failure)


def pause(s: Session, id: str) -> JobRecord:
    """Start no further steps of a running job; those that run finish.

    Raises:
        NotFoundError, ConflictError: no such job, or it is not running.
    """
    return move(s, id, JobState.PAUSED)


def resume(s: Session, id: str) -> JobRecord:
    """Let a paused job go on, ringing for every step that waits.

    Raises:
        NotFoundError, ConflictError: no such job, or it is not paused.
    """
    job = _move(s, id, (JobState.PAUSED,), JobState.RUNNING, "be resumed", {})
    steps.ensure_advance(s, id)
    for step in steps.of_job(s, id, states=(StepState.QUEUED,)):
        steps.ring(s, step)
    return job


def extend(s: Session, id: str, further: Budget) -> JobRecord:
    """Raise limits of a job whose search has not ended, and have it look again.

    Asking for the limits in force changes nothing. The request's digest stays that of what was posted, so that its
    idempotency key still stands for the job.

    Raises:
        NotFoundError: no such job.
        ConflictError: its search has ended: held-out items are being read, or were.
        BudgetError: a limit would end the search sooner.
    """
    rows.lock_job(s, id)
    job = get(s, id)
    if job.state not in _SEARCHING:
        raise ConflictError(
            f"only a job that is {', '.join(_SEARCHING)} can be extended, but {id!r} is {job.state}, and what its "
            f"verdict rests on is fixed: clone it with a new budget and warm_start [{id!r}]",
            where="state",
        )
    budget = job.request.budget.extended(further)
    if budget == job.request.budget:
        return job
    request = job.request.evolve(budget=budget)
    values = {"request": request.model_dump(mode="json")}
    after = rows.change(s, jobs, JobRecord, id, _SEARCHING, values, "be extended")
    payload = {"before": job.request.budget.model_dump(mode="json"), "after": budget.model_dump(mode="json")}
    events.append(s, id, "extended", payload)
    if job.state is not JobState.PAUSED:
        steps.ensure_advance(s, id)
    return after


def set_verdict(s: Session, id: str, verdict: dict[str, Any]) -> JobRecord:
    """Record the confirmation's result.

    Raises:
        NotFoundError, ConflictError: no such job, or it failed or was cancelled.
    """
    rows.lock_job(s, id)
    return rows.change(s, jobs, JobRecord, id, _KEPT, {"verdict": verdict}, "have a verdict")


def pin_contents(s: Session, id: str, contents: dict[str, str]) -> dict[str, str]:
    """Fix the content digest of tasks. The first writer wins; what is in force is returned.

    Raises:
        NotFoundError: no such job.
    """
    return _pin(s, id, "contents", contents)


def pin_fingerprints(s: Session, id: str, fingerprints: dict[str, str]) -> dict[str, str]:
    """Fix the scoring fingerprint of tasks. The first writer wins; what is in force is returned, to be compared.

    Raises:
        NotFoundError: no such job.
    """
    return _pin(s, id, "fingerprints", fingerprints)


def count(s: Session, id: str, *, items: int = 0, heldout_reads: int = 0) -> None:
    """Add to the items scored in the search and to the reads of held-out items.

    Raises:
        NotFoundError: no such job.
    """
    rows.lock_job(s, id)
    values = {
        "items_scored": jobs.c.items_scored + items,
        "heldout_reads": jobs.c.heldout_reads + heldout_reads,
    }
    s.execute(update(jobs).where(jobs.c.id == id).values(values))


def _move(
    s: Session, id: str, sources: tuple[str, ...], target: JobState, wish: str, fields: dict[str, Any]
) -> JobRecord:
    unknown = sorted(fields.keys() - _MOVABLE)
    if unknown:
        raise ValueError(f"a move may set {sorted(_MOVABLE)!r}, but got {unknown!r}: use the function for it")
    rows.lock_job(s, id)
    values = {name: _json(value) for name, value in fields.items()} | {"state": target.value}
    if target is JobState.RUNNING:
        values["started_at"] = func.coalesce(jobs.c.started_at, func.now())
        values["paused_seconds"] = jobs.c.paused_seconds + func.coalesce(_since(jobs.c.paused_at), 0.0)
    values["paused_at"] = func.now() if target is JobState.PAUSED else None
    if target.final:
        values["finished_at"] = func.now()
        values["paused_seconds"] = jobs.c.paused_seconds + func.coalesce(_since(jobs.c.paused_at), 0.0)
    job = rows.change(s, jobs, JobRecord, id, sources, values, wish)
    events.append(s, id, "job_state", {"state": target.value})
    if target.final:
        _end(s, job)
    return job


def _since(moment: Any) -> Any:
    return func.extract("epoch", func.now() - moment)


def _end(s: Session, job: JobRecord) -> None:
    """Cancel the unfinished trials and the queued steps; also the running steps unless the job succeeded."""
    open_trials = tuple(state.value for state in TrialState if not state.final)
    statement = update(trials).where(trials.c.job_id == job.id, trials.c.state.in_(open_trials))
    ended = statement.values(state=TrialState.CANCELLED.value, finished_at=func.now())
    for row in sorted(s.execute(ended.returning(trials.c.number, trials.c.id)).all()):
        payload = {"trial_id": row.id, "number": row.number, "state": TrialState.CANCELLED.value}
        events.append(s, job.id, "trial_state", payload)
    states = (StepState.QUEUED,) if job.state is JobState.SUCCEEDED else (StepState.QUEUED, StepState.RUNNING)
    steps.cancel(s, step_rows.c.job_id == job.id, states)


def _pin(s: Session, id: str, column: str, wishes: dict[str, str]) -> dict[str, str]:
    rows.lock_job(s, id)
    kept: dict[str, str] = s.execute(select(jobs.c[column]).where(jobs.c.id == id)).scalar_one()
    force = {**wishes, **kept}
    if force != kept:
        s.execute(update(jobs).where(jobs.c.id == id).values({column: force}))
    return force


def _json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Failure) else value
