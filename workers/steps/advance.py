"""Advance a job: look at what is stored, do what follows from it, and finish, all in one transaction.

Advancing is idempotent. Whatever happens (a model inspected, a rung scored, a confirmation read) adds one advance step,
and a job that nothing would wake is woken by the reconciler.
"""

from __future__ import annotations

from core.records import StepRecord
from core.settings import Settings
from core.states import JobState
from store import jobs, steps
from store.session import Database
from workers.phases import confirming, exporting, preparing, proposers, running, training

PHASES = {
    JobState.QUEUED: preparing.begin,
    JobState.PREPARING: preparing.look,
    JobState.RUNNING: running.look,
    JobState.CONFIRMING: confirming.look,
    JobState.EXPORTING: exporting.look,
}
#: The same of jobs that train a generator.
TRAINING = {
    JobState.QUEUED: training.begin,
    JobState.PREPARING: training.prepared,
    JobState.RUNNING: training.look,
}


def run(database: Database, settings: Settings, step: StepRecord) -> None:
    """Advance the step's job by one look.

    Raises:
        LeaseLostError: another worker advances it now.
    """
    try:
        with database.transaction() as session:
            steps.guard(session, step.id, step.fence)
            job = jobs.get(session, str(step.job_id))
            phase = (PHASES if job.training is None else TRAINING).get(job.state)
            if phase is not None:
                phase(session, settings, job)
            steps.finish(session, step.id, step.fence)
    except BaseException:
        # Optuna commits as it is asked, and our rows of that were just rolled back: the next look opens the study
        # anew, which gives back what became no candidate.
        proposers.forget(str(step.job_id))
        raise
