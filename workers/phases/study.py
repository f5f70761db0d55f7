"""What one look needs to know of a running search."""

from __future__ import annotations

from dataclasses import dataclass

from core.model import Model
from core.records import Device, JobRecord, StepKind
from core.rungs import rung_sizes
from core.space import SearchSpace
from store import steps, tasks
from store.session import ReadSession
from workers.parents import job_models


@dataclass(frozen=True)
class Search:
    """A job under way: its parents, space, rungs, and the kind of device that scores for it."""

    job: JobRecord
    models: dict[str, Model]
    space: SearchSpace
    rungs: tuple[int, ...]
    device: Device

    @classmethod
    def of(cls, session: ReadSession, job: JobRecord) -> Search:
        """Read it from the store."""
        known = job_models(session, job)
        counts = [
            len(tasks.get(session, spec.task, job.contents[spec.task]).side("search"))
            for spec in job.request.objective.tasks
        ]
        return cls(
            job=job,
            models=known,
            space=job.request.search_space(min(model.header.layers for model in known.values())),
            rungs=rung_sizes(job.request.racing, counts),
            device=job_device(session, job),
        )


def job_device(session: ReadSession, job: JobRecord) -> Device:
    """The kind of device that read the job's tasks first; all its candidates are scored on that kind."""
    done = steps.of_job(session, job.id, kinds=(StepKind.INSPECT_TASK,))
    return Device(str((done[0].result or {}).get("device", Device.CPU))) if done else Device.CPU
