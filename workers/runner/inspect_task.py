"""Read a task once: documents, canonical numbers, and on which side of the split each lies."""

from __future__ import annotations

from core.errors import TaskError
from core.records import StepRecord
from evaluation.inspect import inspect_task
from store import steps, tasks
from workers.heart import Heart
from workers.runner.bench import Bench


def run(bench: Bench, step: StepRecord, heart: Heart) -> None:
    """Record the task's content; the result names its digest and the kind of device that job work will use.

    Raises:
        UnknownTaskError, TaskError: the task cannot be loaded, or one side of its split is empty.
    """
    name = str(step.payload["task"])
    content = inspect_task(name, bench.folders)
    for side in ("search", "heldout"):
        if not content.side(side):
            raise TaskError(
                f"task {name!r} has no {side} items: give it more documents or splits of its own", where=name
            )
    with bench.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        tasks.put(session, content)
        steps.finish(session, step.id, step.fence, {"content": content.content_digest, "device": str(bench.kind)})
        if step.job_id is not None:
            steps.ensure_advance(session, step.job_id)
