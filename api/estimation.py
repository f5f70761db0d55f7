"""What an estimate needs to know: headers, tasks as workers read them, and the pace of earlier jobs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from api.reuse import reused_items
from api.submission import ready_models
from core.checkpoint import read_header
from core.costs import Pace, task_size
from core.errors import HuarizoError
from core.estimate import Estimate, estimate
from core.jobs import LOCAL_REF, SearchJob
from core.model import Header, Model
from core.parents import job_parents
from core.records import JobRecord
from core.refs import resolve_local
from core.settings import Settings
from store import jobs, paces, tasks
from store.session import ReadSession


def estimate_of(
    s: ReadSession, job: SearchJob, settings: Settings, *, device: str | None = None, workers: int | None = None
) -> Estimate:
    """The estimate of a job that passed its checks.

    Args:
        s: the session.
        job: the job.
        settings: the settings of this process; workers are taken to have the same.
        device: the name of the devices that will score; by default the one that scored most of the recent steps.
        workers: how many of them.
    """
    observed = _paces(s)
    named = device or _usual(observed, settings)
    return estimate(
        job,
        _headers(s, job, settings),
        [task_size(spec, tasks.latest(s, spec.task)) for spec in job.objective.tasks],
        device=named,
        paces=observed,
        workers=workers,
        reuse_bytes=settings.reuse_bytes,
        reused=reused_items(s, job, _registered(s, job)),
    )


def _usual(observed: list[Pace], settings: Settings) -> str:
    common = Counter(pace.device for pace in observed).most_common(1)
    wish = settings.device.partition(":")[0]
    return common[0][0] if common else "cpu" if wish in ("auto", "cpu") else wish


def _registered(s: ReadSession, job: SearchJob) -> dict[str, Model]:
    return job_parents(job.models, ready_models(s, {model.name: model.ref for model in job.models}))


def _headers(s: ReadSession, job: SearchJob, settings: Settings) -> dict[str, Header]:
    """Headers of the job's models: registered ones, and checkpoints on this machine."""
    found = {name: model.header for name, model in _registered(s, job).items()}
    for model in job.models:
        if model.name not in found and LOCAL_REF.match(model.ref):
            header = _local_header(model.ref, settings)
            if header is not None:
                found[model.name] = header
    return found


def _local_header(ref: str, settings: Settings) -> Header | None:
    """The header of a checkpoint on this machine; None where it cannot be read, which the job itself will say."""
    try:
        return read_header(Path(resolve_local(ref, settings.model_roots)))
    except (HuarizoError, OSError):
        return None


def _paces(s: ReadSession) -> list[Pace]:
    """Steps of earlier jobs, with the size of what they scored."""
    found, sizes = [], dict[str, tuple[int, float] | None]()
    for timed in paces.recent(s):
        if timed.job_id not in sizes:
            sizes[timed.job_id] = _size(s, jobs.get(s, timed.job_id))
        size = sizes[timed.job_id]
        if size is not None:
            parameters, tokens = size
            found.append(
                Pace(
                    device=timed.device,
                    items=timed.items,
                    seconds=timed.seconds,
                    build_seconds=timed.build_seconds,
                    parameters=parameters,
                    tokens=tokens,
                )
            )
    return found


def _size(s: ReadSession, job: JobRecord) -> tuple[int, float] | None:
    """Weights of a job's largest parent and tokens of its mean item; None where they are no longer known."""
    ready = ready_models(s, {model.name: model.ref for model in job.request.models})
    weights = [model.header.parameters for model in ready.values() if isinstance(model, Model)]
    contents = [(spec, tasks.latest(s, spec.task)) for spec in job.request.objective.tasks]
    sized = [task_size(spec, content) for spec, content in contents]
    items = sum(size.search_items for size in sized)
    if not weights or not items:
        return None
    return max(weights), sum(size.tokens.likely * size.search_items for size in sized) / items
