"""Real merges: searches replayed on a committed matrix of nursery candidates, and searches with nothing to find."""

from __future__ import annotations

from benchmarks.claims import ROOT, Report
from benchmarks.search_matrix import Matrix
from benchmarks.search_null import report_null
from benchmarks.search_replay import SEEDS, report_replays

#: Written by `python -m benchmarks.search_matrix` from the nursery of seed 7.
MATRIX = ROOT / "benchmarks" / "results" / "nursery-7-matrix.npz"
#: Searches of a quick run.
FEW = 4


def real(report: Report) -> None:
    """Claim what the matrix shows."""
    matrix = Matrix.load(MATRIX)
    report_replays(report, matrix, SEEDS[:FEW] if report.quick else SEEDS)
    report_null(report, matrix)
