"""`huarizo estimate`: what a job will cost, before it is posted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from huarizo.cli.console import out, print_json, say
from huarizo.cli.jobs import read_job
from huarizo.cli.session import connect

Json = Mapping[str, Any]


def run(source: str, *, device: str | None, workers: int | None, as_json: bool) -> None:
    """Check a job here and by the service, and print what it will cost.

    Raises:
        InvalidInputError, pydantic.ValidationError: the job breaks a rule.
    """
    job = read_job(source)
    with connect() as client:
        found = client.estimate(job, device=device, workers=workers)
    if as_json:
        print_json(found)
        return
    out().print(table(found))
    for line in remarks(found):
        say(line)


def table(found: Json) -> Table:
    """The figures, each as likely and from least to most."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("", "left"), ("likely", "right"), ("from", "right"), ("to", "right")):
        grid.add_column(name, justify="right" if side == "right" else "left")
    _row(grid, "candidates", found["candidates"], whole)
    for rung in found["rungs"]:
        _row(grid, f"  that reach {rung['items_per_task']:,} items per task", rung["candidates"], tenth)
    _row(grid, "items scored", found["item_evaluations"], whole)
    if found["refined_items"][-1]:
        _row(grid, "  by gradient refinement", found["refined_items"], whole)
    _row(grid, "builds", found["builds"], whole)
    _row(grid, f"seconds of {found['device']}", found["device_seconds"], time)
    _row(grid, f"wall time with {found['workers']} at once", found["seconds"], time)
    if found["memory_bytes"] is not None:
        parts = ", ".join(f"{name} {size(value)}" for name, value in found["memory"].items())
        grid.add_row(Text(f"memory of one worker ({parts})"), Text(size(found["memory_bytes"])), "", "")
    return grid


def remarks(found: Json) -> list[str]:
    """What ends the search, what is rested on, and what is taken for granted."""
    observed = f"{found['observed']} steps of earlier jobs" if found["observed"] else "a table of devices"
    lines = [
        f"ends by {found['ends_by']}; then at most {found['heldout_items']:,} held-out items are read",
        f"times rest on {observed}; --json shows every number that went in",
    ]
    return [*lines, *(f"taken for granted: {said}" for said in found["assumptions"])]


def whole(value: float) -> str:
    """A count."""
    return f"{value:,.0f}"


def tenth(value: float) -> str:
    """A mean count."""
    return f"{value:,.1f}"


def time(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _row(grid: Table, name: str, span: Sequence[float] | None, told: Callable[[float], str]) -> None:
    cells = ("unknown", "", "") if span is None else tuple(told(span[place]) for place in (1, 0, 2))
    grid.add_row(Text(name), *map(Text, cells))
