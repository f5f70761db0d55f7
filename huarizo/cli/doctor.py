"""`huarizo doctor`: what works on this machine, what does not, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from core.settings import Settings
from huarizo.checks import Check, machine, servers
from huarizo.cli.console import out, print_json
from huarizo.service.places import Places

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def run(*, as_json: bool) -> int:
    """Run every check and print the outcome; 1 if one failed."""
    checks = list(examine(Settings()))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        out().print(table(checks))
    return 1 if any(check.status == "fail" for check in checks) else 0


def table(checks: list[Check]) -> Table:
    """One line a check."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "", "found", "how to mend it"):
        grid.add_column(column, overflow="fold")
    for check in checks:
        grid.add_row(check.name, Text(check.status, STYLES[check.status]), Text(check.found), Text(check.mend))
    return grid


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, each as soon as it is known."""
    places = Places.of(settings)
    yield machine.python_version()
    yield machine.torch_build()
    yield machine.graphics()
    yield from servers.servers(settings)
    yield servers.service(settings, places)
    yield machine.disk(places)
    yield from machine.folders(places)
    yield machine.datasets(places.datasets)
