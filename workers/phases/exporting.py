"""The last phase: the winner becomes a checkpoint."""

from __future__ import annotations

from core.records import Failure, JobRecord, StepKind, TrialRecord
from core.settings import Settings
from core.states import JobState, StepState
from store import jobs, steps
from store.session import Session
from workers.phases.study import job_device


def begin(session: Session, job: JobRecord, winner: TrialRecord) -> None:
    """Order the export."""
    jobs.move(session, job.id, JobState.EXPORTING)
    device = job_device(session, job)
    steps.add(session, StepKind.EXPORT, device, job_id=job.id, trial_id=winner.id)


def look(session: Session, settings: Settings, job: JobRecord) -> None:
    """Succeed once the checkpoint lies there."""
    asked = [s for s in steps.of_job(session, job.id, kinds=(StepKind.EXPORT,)) if not s.payload.get("asked")]
    if not asked or not all(step.state.final for step in asked):
        return
    if asked[-1].state is StepState.DONE:
        jobs.move(session, job.id, JobState.SUCCEEDED)
    else:
        jobs.fail(session, job.id, asked[-1].failure or Failure(code="internal", message="the export failed"))
