"""Real merges: searches replayed on a committed matrix of nursery candidates, and searches with nothing to find."""

from __future__ import annotations

from benchmarks.claims import ROOT, Report
from benchmarks.search_matrix import Matrix
from benchmarks.search_null import report_null
from benchmarks.search_replay import report_replays

#: Written by `python -m benchmarks.search_matrix` from the nursery of seed 7.
MATRIX = ROOT / "benchmarks" / "results" / "nursery-7-matrix.npz"


def replays(report: Report) -> None:
    """Claim what searches replayed on the matrix cost."""
    report_replays(report, Matrix.load(MATRIX))


def null(report: Report) -> None:
    """Claim how often nothing passes for a gain."""
    report_null(report, Matrix.load(MATRIX))
