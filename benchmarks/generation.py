"""What generated weights are worth: `python -m benchmarks.generation [--quick] [--only PART ...] [--json FILE]`.

Figures are numbered as in the acceptance table of docs/weight-generation.md. Parts are measured one after the other,
and each replaces its own figures in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from benchmarks.claims import Report
from benchmarks.generation_card import card
from benchmarks.generation_cost import on_gpu, paper
from benchmarks.generation_exact import determinism, exact
from benchmarks.generation_mixed import FAMILIES, SEEDS, mixed
from benchmarks.generation_mixed import ITEMS as MIXED_ITEMS
from benchmarks.generation_norms import block, norms, seconds
from benchmarks.generation_real import real
from benchmarks.generation_rivals import matched, rivals, visible
from benchmarks.generation_samples import ITEMS
from benchmarks.generation_selection import best_of
from benchmarks.generation_setting import FAMILY, Setting
from benchmarks.parts import measured

Measure = Callable[[Report], None]

#: Each measures one thing on one nursery and claims its figures.
ON_NURSERY: dict[str, Callable[[Report, Setting], None]] = {
    "seconds": seconds,
    "exact": exact,
    "determinism": determinism,
    "norms": norms,
    "block": block,
    "noise": matched,
    "parents": visible,
    "rivals-gain": rivals("gain", equal=False),
    "rivals-gain-equal": rivals("gain", equal=True),
    "rivals-delta": rivals("delta", equal=False),
    "rivals-delta-equal": rivals("delta", equal=True),
    "selection": best_of,
    "card": card,
}


def _alone(part: Callable[[Report, Setting], None], family: int = FAMILY) -> Measure:
    """The part on a nursery, on one core but where it says otherwise."""

    def measure(report: Report) -> None:
        torch.set_num_threads(1)
        part(report, Setting(family, MIXED_ITEMS if family != FAMILY else ITEMS))

    return measure


PARTS: dict[str, Measure] = {
    **{name: _alone(part) for name, part in ON_NURSERY.items()},
    **{f"mixed-{family}-{seed}": mixed(family, seed) for family in FAMILIES for seed in SEEDS},
    "real": real,
    "cost": paper,
    "gpu": on_gpu,
}


def main(argv: list[str] | None = None) -> int:
    """Measure the parts that are asked for, all by default; 0 when every goal that was measured is reached."""
    return measured("generation", __doc__, PARTS, argv)


if __name__ == "__main__":
    sys.exit(main())
