"""What generated weights are worth: `python -m benchmarks.generation [--quick] [--only PART ...] [--json FILE]`.

Figures are numbered as in the acceptance table of docs/weight-generation.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from benchmarks.claims import Report, run
from benchmarks.generation_cost import on_gpu, paper
from benchmarks.generation_exact import exact
from benchmarks.generation_mixed import mixed
from benchmarks.generation_norms import block, norms, seconds
from benchmarks.generation_real import real
from benchmarks.generation_rivals import matched, rivals, visible
from benchmarks.generation_samples import ITEMS
from benchmarks.generation_selection import best_of
from benchmarks.generation_setting import Setting

#: Each measures one thing and claims its figures.
PARTS: dict[str, Callable[[Report, Setting], None]] = {
    "seconds": seconds,
    "exact": exact,
    "norms": norms,
    "block": block,
    "noise": matched,
    "parents": visible,
    "rivals": rivals,
    "selection": best_of,
    "mixed": mixed,
}
#: Parts about other models.
ELSEWHERE: dict[str, Callable[[Report], None]] = {"real": real, "cost": paper, "gpu": on_gpu}


def measure(report: Report) -> None:
    """Every part that is asked for, on one core but where a part says otherwise."""
    torch.set_num_threads(1)
    setting = Setting(items=ITEMS)
    for name, part in PARTS.items():
        if report.wants(name):
            begun = time.monotonic()
            part(report, setting)
            report.note(f"{name}: {time.monotonic() - begun:.0f} s")
    for name, other in ELSEWHERE.items():
        if report.wants(name):
            other(report)


if __name__ == "__main__":
    sys.exit(run("generation", measure, parts=[*PARTS, *ELSEWHERE]))
