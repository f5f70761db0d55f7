"""Small jobs, trials and steps, and what tests do to rows behind the store's back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import update

from core.jobs import SearchJob
from core.recipe.resolved import Entry, Group, ResolvedRecipe, ResolvedSource
from core.recipe.short import identity
from core.records import Device, Failure, JobRecord, Score, StepKind, StepRecord, TrialRecord
from core.states import JobState
from store import jobs, steps, tables, trials
from store.queue import seconds
from store.session import Session

T = TypeVar("T")

FAILURE = Failure(code="internal", message="it broke")
#: -0.0 and 1e16 are what a database that parses JSON would not give back.
AWKWARD = {"density": -0.0, "weight": 1e16}


def search(**changes: Any) -> SearchJob:
    """A small valid request."""
    return SearchJob.model_validate(
        {
            "models": [{"name": "a", "ref": "local:a"}, {"name": "b", "ref": "local:b"}],
            "space": {"families": [{"family": "merge", "methods": ["linear"]}]},
            "objective": {"tasks": [{"task": "arc_easy"}]},
            "budget": {"trials": 5},
            **changes,
        }
    )


def resolved(**params: float) -> ResolvedRecipe:
    """A resolved recipe of one layer."""
    entry = Entry(
        sources=((0, 0),), method="passthrough", version=1, groups=(Group(tensors=("weight",), params=params),)
    )
    return ResolvedRecipe(
        model_type="llama",
        sources=(ResolvedSource(kind="model", weights="0" * 64),),
        layers=(entry,),
        embed=entry,
        head=entry,
        tokenizer=0,
        save_dtype="bfloat16",
        seed=1,
    )


def new_job(s: Session, state: JobState = JobState.RUNNING, **changes: Any) -> JobRecord:
    """A job in `state`, its first `advance` step done."""
    job, _ = jobs.create(s, search(**changes))
    step = claim(s, Device.NONE)
    assert step is not None
    steps.finish(s, step.id, step.fence)
    put(s, "jobs", job.id, state=state.value)
    return jobs.get(s, job.id)


def new_trial(s: Session, job_id: str, **changes: Any) -> TrialRecord:
    """A queued trial and its step."""
    fields: dict[str, Any] = {
        "origin": "proposed",
        "values": {"merge.linear.weight.a": 0.5},
        "recipe": identity("a", save_dtype="bfloat16"),
        "resolved": resolved(density=0.5),
        "target_items": 50,
        "device": Device.CPU,
    }
    return trials.create(s, job_id, **fields | changes)


def new_step(s: Session, kind: StepKind = StepKind.RUN_TRIAL, device: Device = Device.CPU, **more: Any) -> StepRecord:
    """A queued step."""
    return steps.add(s, kind, device, **more)


def claim(s: Session, *devices: Device, owner: str = "worker", lease_seconds: float = 60, **more: Any) -> Any:
    """The best step for `devices` (default: any)."""
    return steps.claim(s, owner=owner, devices=devices or tuple(Device), lease_seconds=lease_seconds, **more)


def score(value: float, task: str = "arc_easy", n: int = 50) -> Score:
    """A score."""
    return Score(task=task, metric="acc_norm", value=value, stderr=0.01, n=n)


def put(s: Session, table: str, id: str, **values: Any) -> None:
    """Write columns past every guard."""
    rows = tables.metadata.tables[table]
    s.execute(update(rows).where(rows.c.id == id).values(values))


def age(s: Session, id: str, column: str, by: float) -> None:
    """Move a moment of a step into the past."""
    put(s, "steps", id, **{column: tables.steps.c[column] - seconds(by)})


def at_once(action: Callable[[int], T], threads: int) -> list[T]:
    """Run `action(0)`, `action(1)`, ... at the same moment, each on a thread of its own."""
    ready = threading.Barrier(threads)

    def run(number: int) -> T:
        ready.wait()
        return action(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def rung(s: Session) -> list[tuple[str, str]]:
    """Queue and kind of every bell collected so far."""
    return [(queue, kind) for queue, kind, _ in s.bells]
