"""The page about the scoring engine's speed, from its committed figures.

    python -m benchmarks.scoring_page

writes docs/scoring-speed.md from benchmarks/results/scoring.json; a test compares the two.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.claims import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "scoring.json"
PAGE = ROOT / "docs" / "scoring-speed.md"
_BEGINNING = """# How fast scoring is

Written by `python -m benchmarks.scoring_page` from [the committed figures](../benchmarks/results/scoring.json), which
`{command}` measured at commit `{commit}` in {minutes:.0f} minutes on {processor}, {cores} cores,
Python {python}, torch {torch}, {gpu}. [evaluation.md](evaluation.md) says what is computed.

What is compared: processor seconds on one thread (on a GPU, device seconds), the best of several, both sides in turn,
on random models over invented documents of the lengths of the real data sets. The stock harness is lm-eval 0.4.3's own
`HFLM`, at the batch size that is best for it on a pilot of each task. The limit is the arithmetic of the harness's
requests over that of their token trie, the head applied only where something is scored. A whole candidate is a trial
of a search job as a runner takes it, from its weights in place to its step finished in Postgres, the database server's
time included; against it stand the harness with its model and its index of the tasks resident, and its command line:
a process of its own with its start, and the checkpoint written for it.

| figure | value | goal |
|---|---|---|
"""


def page(found: dict[str, Any]) -> str:
    """The page of a result."""
    machine = found["machine"]
    begin = _BEGINNING.format(
        **{name: machine[name] for name in ("processor", "cores", "python", "torch")},
        command=found["command"],
        commit=found["commit"],
        minutes=found["seconds"] / 60,
        gpu=machine["gpu"] or "no GPU",
    )
    rows = [f"| {claim['name']} | {claim['value']:.4g} {claim['unit']} | {_goal(claim)} |" for claim in found["claims"]]
    skipped = sorted({entry["reason"] for entry in found["not_run"]})
    missing = [
        f"\nNot measured ({reason}): " + "; ".join(e["name"] for e in found["not_run"] if e["reason"] == reason) + "."
        for reason in skipped
    ]
    notes = ["\n## Remarks of the run\n", *(f"- {note}" for note in found["notes"])]
    return begin + "\n".join([*rows, *missing, *notes]) + "\n"


def _goal(claim: dict[str, Any]) -> str:
    if claim["goal"] is None:
        return ""
    higher = claim["better"] == "higher"
    reached = claim["value"] >= claim["goal"] if higher else claim["value"] <= claim["goal"]
    return f"{'≥' if higher else '≤'} {claim['goal']:g}, {'reached' if reached else '**missed**'}"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
