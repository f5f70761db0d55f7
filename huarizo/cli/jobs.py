"""`huarizo submit`, `clone`, `extend`, `watch`, `jobs`, `show`, `trials`, `cancel`, `pause`, `resume`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import BudgetError, InvalidInputError
from core.jobs import SearchJob, check_job
from core.jobs import read_job as job_of
from core.states import JobState
from huarizo.cli import tables, verdict
from huarizo.cli.console import err, out, print_json, remark, say
from huarizo.cli.failure import read_object
from huarizo.cli.patience import patiently
from huarizo.cli.session import connect
from huarizo.cli.watch import follow, own_generator
from huarizo.client import Client

Json = Mapping[str, Any]


def submit(
    source: str, *, watch: bool, idempotency_key: str | None, as_json: bool, warm_start: Sequence[str] = ()
) -> int:
    """Check a job here, post it, and maybe watch it; the exit code.

    Raises:
        InvalidInputError, pydantic.ValidationError: the job breaks a rule; nothing was posted.
    """
    job = read_job(source)
    if warm_start:
        job = {**job, "warm_start": list(warm_start)}
        job_of(job)
    with connect() as client:
        return _posted(client, client.submit(job, idempotency_key=idempotency_key), watch=watch, as_json=as_json)


def clone(
    job_id: str,
    changes: Sequence[str],
    *,
    warm_start: bool,
    watch: bool,
    idempotency_key: str | None,
    as_json: bool,
) -> int:
    """Post a job again with some fields changed, and maybe watch it; the exit code.

    Args:
        changes: each `path=value`, such as `budget.trials=120`; see `patch_of`.

    Raises:
        InvalidInputError: a change that cannot be read; nothing was posted.
    """
    patch = patch_of(changes)
    with connect() as client:
        posted = client.clone(job_id, patch, warm_start=warm_start, idempotency_key=idempotency_key)
        return _posted(client, posted, watch=watch, as_json=as_json)


def patch_of(changes: Sequence[str]) -> dict[str, Any]:
    """A merge patch from `path=value` words: the path dotted, the value JSON, or text where it is no JSON.

    Raises:
        InvalidInputError: a word without a path or an equals sign, or a path through what is no object.
    """
    patch: dict[str, Any] = {}
    for word in changes:
        path, mark, text = word.partition("=")
        *way, last = path.split(".")
        if not mark or not last or not all(way):
            raise InvalidInputError(f"a change is path=value, such as budget.trials=120, but got {word!r}")
        at: Any = patch
        for name in way:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise InvalidInputError(f"{word!r} goes through what another change makes a value: name it once")
        try:
            at[last] = json.loads(text)
        except ValueError:
            at[last] = text
    return patch


def extend(job_id: str, budget: Mapping[str, float | None], *, as_json: bool) -> None:
    """Raise limits of a search that has not ended.

    Raises:
        BudgetError: no limit was named.
    """
    named = {name: value for name, value in budget.items() if value is not None}
    if not named:
        raise BudgetError("an extension raises at least one limit, but names none: set --trials", where="budget")
    with connect() as client:
        job = client.extend(job_id, named)
    if as_json:
        print_json(job)
    else:
        say(f"{job['id']} {job['state']}")


def _posted(client: Client, posted: Json, *, watch: bool, as_json: bool) -> int:
    if watch:
        remark(f"posted {posted['id']}")
        return _to_the_end(client, posted["id"], as_json=as_json)
    if as_json:
        print_json(posted)
    else:
        say(posted["id"])
        remark(f"posted; `huarizo watch {posted['id']}` shows its progress")
    return 0


def read_job(source: str) -> dict[str, Any]:
    """Read a job from a file, or from stdin for `-`, and check what can be checked without a service.

    Raises:
        InvalidInputError, pydantic.ValidationError: no file, no JSON, or a broken rule.
    """
    job = read_object(_text(source), "a job")
    found = job_of(job)
    if isinstance(found, SearchJob):
        check_job(found)
    return job


def watch(job_id: str, *, as_json: bool) -> int:
    """Watch a job to its end; the exit code."""
    with connect() as client:
        return _to_the_end(client, job_id, as_json=as_json)


def list_jobs(*, state: str | None, limit: int, as_json: bool) -> None:
    """Print the newest jobs."""
    if state is not None and state not in list(JobState):
        raise InvalidInputError(f"a job's state is one of {', '.join(JobState)}, but got {state!r}")
    with connect() as client:
        found = client.jobs(limit=limit, state=state)
    if as_json:
        print_json(found)
    else:
        out().print(tables.of_jobs(found))


def show(job_id: str, *, as_json: bool) -> None:
    """Print one job."""
    with connect() as client:
        job = client.job(job_id)
        if as_json:
            print_json(job)
            return
        out().print(tables.of_job(job))
        if job.get("verdict"):
            out().print(verdict.shown(gather(client, job)))


def list_trials(job_id: str, *, order: str, limit: int, as_json: bool) -> None:
    """Print a job's trials."""
    if order not in ("number", "score"):
        raise InvalidInputError(f"trials are ordered by number or score, but got {order!r}")
    with connect() as client:
        found = client.trials(job_id, limit=limit, order=order)
    if as_json:
        print_json(found)
    else:
        out().print(tables.of_trials(found))


def act(verb: str, job_id: str, *, as_json: bool) -> None:
    """Cancel, pause or resume."""
    with connect() as client:
        job = {"cancel": client.cancel, "pause": client.pause, "resume": client.resume}[verb](job_id)
    if as_json:
        print_json(job)
    else:
        say(f"{job['id']} {job['state']}")


def gather(client: Client, job: Json) -> verdict.Report:
    """A job's result, with what else must be asked for it."""
    trials = patiently(lambda: client.trials(job["id"]))
    winner = ((job.get("verdict") or {}).get("winner") or {}).get("trial_id")
    if winner is not None:
        detail = patiently(lambda: client.trial(winner))
        trials = [detail if trial["id"] == winner else trial for trial in trials]
    artifacts = [patiently(lambda found=found: client.artifact(found)) for found in job.get("artifacts") or ()]  # type: ignore[misc]
    return verdict.report_of(job, trials, artifacts)


def _to_the_end(client: Client, job_id: str, *, as_json: bool) -> int:
    try:
        job = follow(client, job_id, err())
    except KeyboardInterrupt:
        remark(
            f"{job_id} goes on without you: `huarizo watch {job_id}` to look again, `huarizo cancel {job_id}` to end it"
        )
        raise
    if as_json:
        print_json(job)
    else:
        _conclude(client, job)
    return 0 if job["state"] == JobState.SUCCEEDED else 1


def _conclude(client: Client, job: Json) -> None:
    told = job.get("training")
    if told and told["generator"]:
        say(f"generator {told['generator']}, artifact {job['artifacts'][-1]}")
    if job.get("generator"):
        say(f"generator: {own_generator(job['generator'])}")
    if job.get("verdict"):
        report = gather(client, job)
        out().print(verdict.shown(report))
        if report.artifact is not None:
            say(f"checkpoint {report.artifact['id']}: `huarizo export {report.artifact['id']} OUT` saves it")
    say(tables.ending(job))


def _text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"a job is a file, or - for stdin, but {source!r} cannot be read: {error}") from error
