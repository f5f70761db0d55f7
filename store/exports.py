"""Exports that somebody asks for, beside the one a job orders for its winner."""

from __future__ import annotations

from sqlalchemy import select

from core.errors import ConflictError
from core.records import Device, StepKind, StepRecord
from core.states import StepState, TrialState
from store import rows, steps, trials
from store.session import Session
from store.tables import steps as step_rows
from store.tables import trials as trial_rows

_SCORED = (TrialState.WAITING, TrialState.SCORED, TrialState.STOPPED)


def ask(s: Session, trial_id: str, max_shard_bytes: int) -> StepRecord:
    """Queue the export of a trial; while one is under way, asking again returns that one.

    The step belongs to no job, so that it runs although the trial's job has ended.

    Raises:
        NotFoundError: no such trial.
        ConflictError: the trial has no scored weights.
    """
    rows.lock_job_of(s, trial_rows, trial_id)
    trial = trials.get(s, trial_id)
    if trial.state not in _SCORED:
        raise ConflictError(
            f"only a trial that was scored can be exported, but {trial_id!r} is {trial.state}: choose another",
            where="state",
        )
    mine = rows.query(step_rows, StepRecord).where(step_rows.c.trial_id == trial_id)
    open_states = [state.value for state in StepState if not state.final]
    asked = mine.where(step_rows.c.kind == StepKind.EXPORT.value, step_rows.c.state.in_(open_states))
    found = s.execute(asked.order_by(step_rows.c.created_at).limit(1)).one_or_none()
    if found is not None:
        return rows.build(StepRecord, found)
    payload = {"asked": True, "max_shard_bytes": max_shard_bytes}
    return steps.add(s, StepKind.EXPORT, _device(s, trial_id), trial_id=trial_id, payload=payload)


def _device(s: Session, trial_id: str) -> Device:
    """The kind of device that scored the trial, as its bytes may depend on it."""
    scored = select(step_rows.c.device).where(
        step_rows.c.trial_id == trial_id, step_rows.c.kind == StepKind.RUN_TRIAL.value
    )
    found = s.execute(scored.order_by(step_rows.c.created_at.desc()).limit(1)).scalar_one_or_none()
    return Device(found or Device.CPU.value)
