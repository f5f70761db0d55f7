"""`huarizo submit`, `watch`, `jobs`, `show`, `trials`, `cancel`, `pause`, `resume`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import InvalidInputError
from core.jobs import SearchJob, check_job
from core.states import JobState
from huarizo.cli import tables, verdict
from huarizo.cli.console import err, out, print_json, remark, say
from huarizo.cli.failure import read_object
from huarizo.cli.patience import patiently
from huarizo.cli.session import connect
from huarizo.cli.watch import follow
from huarizo.client import Client

Json = Mapping[str, Any]


def submit(source: str, *, watch: bool, idempotency_key: str | None, as_json: bool) -> int:
    """Check a job here, post it, and maybe watch it; the exit code.

    Raises:
        InvalidInputError, pydantic.ValidationError: the job breaks a rule; nothing was posted.
    """
    job = read_job(source)
    with connect() as client:
        posted = client.submit(job, idempotency_key=idempotency_key)
        if watch:
            remark(f"posted {posted['id']}")
            return _to_the_end(client, posted["id"], as_json=as_json)
    if as_json:
        print_json(posted)
    else:
        say(posted["id"])
        remark(f"posted; `huarizo watch {posted['id']}` shows its progress")
    return 0


def read_job(source: str) -> dict[str, object]:
    """Read a job from a file, or from stdin for `-`, and check what can be checked without a service.

    Raises:
        InvalidInputError, pydantic.ValidationError: no file, no JSON, or a broken rule.
    """
    job = read_object(_text(source), "a job")
    check_job(SearchJob.model_validate(job))
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
