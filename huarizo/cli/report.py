"""`huarizo report` and `huarizo explain`: what a search found out, as a page to keep or as JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from core.errors import ServiceUnavailableError
from core.states import StepState
from huarizo.cli.console import print_json, remark, say
from huarizo.cli.failure import error_of
from huarizo.cli.patience import patiently
from huarizo.cli.session import connect
from huarizo.client import ApiProblem, Client

POLL_SECONDS = 0.5
#: How long an explanation may take before a report goes without it.
PATIENCE_SECONDS = 300.0


def explain(job_id: str, *, poll_seconds: float = POLL_SECONDS) -> None:
    """Have a job explained and print the explanation.

    Raises:
        HuarizoError: it failed, with the failure's code.
        ServiceUnavailableError: it did not come within PATIENCE_SECONDS.
    """
    with connect() as client:
        explained(client, job_id, poll_seconds)
        print_json(client.explanation(job_id))


def report(job_id: str, out: Path | None, *, fresh: bool, as_json: bool, poll_seconds: float = POLL_SECONDS) -> None:
    """Save a job's report, by default as `<job>.html` here.

    Args:
        job_id: the job.
        out: the file to write.
        fresh: have the job explained first; where it has nothing to explain yet the report goes without.
        as_json: print the place as JSON.
        poll_seconds: between looks at the step.
    """
    with connect() as client:
        if fresh:
            _tried(client, job_id, poll_seconds)
        text = client.report(job_id)
    place = out or Path(f"{job_id}.html")
    place.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"job": job_id, "path": str(place), "bytes": len(text.encode())})
    else:
        say(str(place))


def explained(client: Client, job_id: str, poll_seconds: float) -> dict[str, Any]:
    """Ask for an explanation and wait until it is there; its step."""
    step = client.explain(job_id)
    asked = str(step["id"])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while step["state"] != StepState.DONE:
        if StepState(step["state"]).final:
            failure = step["failure"] or {}
            raise error_of(failure.get("code", ""), failure.get("message") or f"the step was {step['state']}")
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(
                f"an explanation should come within {PATIENCE_SECONDS:g} s, but step {asked!r} is still "
                f"{step['state']}: see whether an inspect worker runs, or use --no-explain"
            )
        time.sleep(poll_seconds)
        step = patiently(lambda: client.step(asked))
    return step


def _tried(client: Client, job_id: str, poll_seconds: float) -> None:
    """An explanation, where there is something to explain."""
    try:
        explained(client, job_id, poll_seconds)
    except ApiProblem as problem:
        if problem.code != "conflict":
            raise
        remark(f"without importance and sensitivity: {problem}")
