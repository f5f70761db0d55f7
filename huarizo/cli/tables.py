"""Jobs and trials as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from huarizo.cli.verdict import moment, percent
from huarizo.cli.watch import LIMITS, best, loss, own_generator, tally

Json = Mapping[str, Any]


def of_jobs(jobs: Sequence[Json]) -> RenderableType:
    """One line a job, newest first."""
    if not jobs:
        return Text("no jobs; `huarizo submit JOB.json` posts one")
    grid = _grid("id", "state", "name", "candidates", "best %", "best parent %", "verdict", "created")
    for job in jobs:
        numbers = percent(job["best"]), percent(job["best_parent"])
        cells = job["id"], job["state"], job["name"], tally(job["trials"]), *numbers, job["verdict"] or ""
        grid.add_row(*map(Text, cells), Text(when(job["created_at"])))
    return grid


def of_trials(trials: Sequence[Json]) -> RenderableType:
    """One line a candidate."""
    if not trials:
        return Text("no trials yet")
    grid = _grid("#", "id", "state", "what", "items", "search %", "held-out %", "seconds", "failure")
    for trial in trials:
        failure = trial.get("failure") or {}
        name = trial["label"] or trial["method"]
        grid.add_row(
            str(trial["number"]),
            trial["id"],
            trial["state"],
            Text(f"{name} (parent)" if trial["origin"] == "parent" else name),
            str(trial["scored_items"]),
            percent(trial["macro"]),
            percent(trial["macro_heldout"]),
            f"{trial['seconds']:.1f}",
            failure.get("code", ""),
        )
    return grid


def of_job(job: Json) -> RenderableType:
    """A job: what it is, how far it is, what came of it."""
    progress = job["progress"]
    facts = {
        "job": f"{job['id']}  {job['name']}",
        "state": job["state"],
        "candidates": tally(progress["trials"]),
        "budget": ", ".join(
            f"{use['used']:,.0f} of {use['allowed']:,.0f} {LIMITS.get(use['limit'], use['limit'])}"
            for use in progress["budget"]
        ),
        **(
            {"loss": loss(job), "generator": job["training"]["generator"] or "none yet"}
            if job.get("training")
            else {"items": f"{progress['items_scored']:,} scored", "best": best(progress)}
        ),
        **({"generator": own_generator(job["generator"])} if job.get("generator") else {}),
        "artifacts": ", ".join(job["artifacts"]) or "none",
        "created": when(job["created_at"]),
    }
    lines = [Text(f"{name:<11} {value}") for name, value in facts.items()]
    if job["failure"]:
        lines.append(Text(ending(job), style="red"))
    return Group(*lines)


def ending(job: Json) -> str:
    """How a job ended, on one line."""
    failure = job.get("failure")
    reason = f": {failure['code']}: {failure['message']}" if failure else ""
    return f"{job['id']} {job['state']}{reason}"


def when(text: str) -> str:
    """A time in this machine's zone."""
    return f"{moment(text).astimezone():%Y-%m-%d %H:%M:%S}"


def _grid(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    return grid
