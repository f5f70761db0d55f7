"""Explanations of jobs: asked for by anyone at any time, kept as artifacts."""

from __future__ import annotations

from sqlalchemy import select

from core.errors import ConflictError, NotFoundError
from core.records import ArtifactRecord, Device, StepKind, StepRecord
from core.states import StepState
from store import artifacts, jobs, rows, steps
from store.session import ReadSession, Session
from store.tables import steps as step_rows
from store.tables import trials

#: Kind of the artifact.
KIND = "explain"


def ask(s: Session, job_id: str) -> StepRecord:
    """Queue the explanation of a job; while one is under way, asking again returns that one.

    The step belongs to no job, so that it runs whatever becomes of the one it explains.

    Raises:
        NotFoundError: no such job.
        ConflictError: no candidate was scored yet.
    """
    rows.lock_job(s, job_id)
    jobs.get(s, job_id)
    mine = (trials.c.job_id == job_id) & (trials.c.origin != "parent")
    scored = select(trials.c.id).where(mine, trials.c.macro.is_not(None))
    if s.execute(scored.limit(1)).one_or_none() is None:
        raise ConflictError(
            f"only a job with scored candidates can be explained, but {job_id!r} has none yet: ask again later",
            where="job_id",
        )
    open_states = [state.value for state in StepState if not state.final]
    asked = rows.query(step_rows, StepRecord).where(
        step_rows.c.kind == StepKind.EXPLAIN.value,
        step_rows.c.state.in_(open_states),
        step_rows.c.payload["job_id"].astext == job_id,
    )
    found = s.execute(asked.order_by(step_rows.c.created_at).limit(1)).one_or_none()
    if found is not None:
        return rows.build(StepRecord, found)
    return steps.add(s, StepKind.EXPLAIN, Device.NONE, payload={"job_id": job_id})


def latest(s: ReadSession, job_id: str) -> ArtifactRecord | None:
    """The newest explanation of a job."""
    found = [artifact for artifact in artifacts.of_job(s, job_id) if artifact.kind == KIND]
    return found[-1] if found else None


def get(s: ReadSession, job_id: str) -> ArtifactRecord:
    """The newest explanation of a job.

    Raises:
        NotFoundError: no such job, or it has none.
    """
    jobs.get(s, job_id)
    found = latest(s, job_id)
    if found is None:
        raise NotFoundError(
            f"{job_id!r} has no explanation: ask for one with POST /v1/jobs/{job_id}:explain", where="job_id"
        )
    return found
