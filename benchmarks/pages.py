"""The pages about speed, from the committed figures.

    python -m benchmarks.pages

writes docs/scoring-speed.md and docs/merging-speed.md from the files of benchmarks/results; a test compares them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claims import ROOT


@dataclass(frozen=True)
class Page:
    """A page and what it is made of.

    Attributes:
        name: of the figures' file, without its ending; the page is `docs/<name>-speed.md`.
        title: its heading.
        about: what the reader must know of how the figures were taken.
    """

    name: str
    title: str
    about: str

    @property
    def path(self) -> Path:
        """Where it stands."""
        return ROOT / "docs" / f"{self.name}-speed.md"

    @property
    def results(self) -> Path:
        """Its figures."""
        return ROOT / "benchmarks" / "results" / f"{self.name}.json"

    def text(self) -> str:
        """The page, from its figures as they are."""
        return text(self, json.loads(self.results.read_text(encoding="utf-8")))


SCORING = Page(
    "scoring",
    "How fast scoring is",
    """[evaluation.md](evaluation.md) says what is computed.

What is compared: processor seconds on one thread (on a GPU, device seconds), the best of several, both sides in turn,
on random models over invented documents of the lengths of the real data sets. The stock harness is lm-eval 0.4.3's own
`HFLM`, at the batch size that is best for it on a pilot of each task. The limit is the arithmetic of the harness's
requests over that of their token trie, the head applied only where something is scored. A whole candidate is a trial
of a search job as a runner takes it, from its weights in place to its step finished in Postgres, the database server's
time included; against it stand the harness with its model and its index of the tasks resident, and its command line:
a process of its own with its start, and the checkpoint written for it.""",
)
MERGING = Page(
    "merging",
    "How fast candidates are built",
    """[recipes.md](recipes.md) says what is computed.

What is compared: wall time of candidates built in memory, each with weights and densities that none before had, the
parents' statistics warm, on a Llama of 32 layers and 160 M weights. Copies of as many bytes are measured in between: a
build reads every source once and writes its result once, and "of copy" is the time that takes at a copy's bandwidth
over the time of the build. More than 1 is possible: half of what a copy moves is written, and less of what a merge of
several sources does; and torch's copy also reads what it writes over, while builds are written past the caches. So the
share of a copy that goes past them as well, the C library's on all cores, is told beside: where arithmetic costs
nothing it comes near to 1. So are what the arithmetic alone reaches (the build less that of as many tensors with next
to no weights) and the first build, which has to find the statistics. The fixed cost of a candidate has resolving its
recipe in it. Of the four layer groups the first has the embedding and the last the head as well, so that
three tenths of the weights change with one of them, and a fifth with one of the others.""",
)
PAGES = (SCORING, MERGING)

_BEGINNING = """# {title}

Written by `python -m benchmarks.pages` from [the committed figures](../benchmarks/results/{name}.json), which were
measured on {processor}, {cores} cores, Python {python}, torch {torch}, {gpu}:
{runs}.
{about}

| figure | value | goal |
|---|---|---|
"""


def text(page: Page, found: dict[str, Any]) -> str:
    """A page over a result."""
    machine = found["machine"]
    begin = _BEGINNING.format(
        **{name: machine[name] for name in ("processor", "cores", "python", "torch")},
        title=page.title,
        name=page.name,
        about=page.about,
        runs=";\n".join(_run(each) for each in _runs(found)),
        gpu=machine["gpu"] or "no GPU",
    )
    rows = [f"| {claim['name']} | {claim['value']:.4g} {claim['unit']} | {_goal(claim)} |" for claim in found["claims"]]
    skipped = sorted({entry["reason"] for entry in found["not_run"]})
    missing = [
        f"\nNot measured ({reason}): " + "; ".join(e["name"] for e in found["not_run"] if e["reason"] == reason) + "."
        for reason in skipped
    ]
    notes = ["\n## Remarks\n", *(f"- {note}" for note in told)] if (told := _notes(found)) else []
    return begin + "\n".join([*rows, *missing, *notes]) + "\n"


def _runs(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What measured the figures: one run, or one for each part."""
    return list(found["parts"].values()) if "parts" in found else [found]


def _run(run: dict[str, Any]) -> str:
    return f"`{run['command']}` at commit `{run['commit']}` in {run['seconds'] / 60:.1f} minutes"


def _notes(found: dict[str, Any]) -> list[str]:
    notes = found["notes"]
    return [note for part in notes.values() for note in part] if isinstance(notes, dict) else notes


def _goal(claim: dict[str, Any]) -> str:
    if claim["goal"] is None:
        return ""
    higher = claim["better"] == "higher"
    reached = claim["value"] >= claim["goal"] if higher else claim["value"] <= claim["goal"]
    return f"{'≥' if higher else '≤'} {claim['goal']:g}, {'reached' if reached else '**missed**'}"


if __name__ == "__main__":
    for each in PAGES:
        each.path.write_text(each.text(), encoding="utf-8")
