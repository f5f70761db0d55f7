"""The golden cases in which this project means to differ from mergekit 0.1.5. `test_deviations.py` shows how and why."""

from __future__ import annotations

from tests.conformance.oracle_cases import Case, of

#: What the deviation is, and the ids of its cases (patterns as of file names).
PATTERNS: dict[str, tuple[str, ...]] = {
    "a zero tensor has no direction": ("slerp/t 0.3/zero", "nuslerp/whole/zero"),
    "opposite directions take the line": ("nuslerp/*/against",),
    "a mean of opposite directions takes the line": ("karcher/two/opposite", "karcher/two/against"),
    "directions that cancel take the line": ("multislerp/* balanced/opposite",),
    "a lone source has its weight": ("multislerp/* alone raw/apart",),
    "eps decides and does not add": ("multislerp/* wide eps/unequal",),
    "tol ends the iteration": ("karcher/coarse/unequal",),
    "t below 1e-6": ("nearswap/tiny t/weights",),
    "divergence of nearly equal rows": ("arcee_fusion/default/weights",),
    "short task vectors have angles": ("model_stock/whole/weights", "model_stock/rows/weights"),
    "no centre in disagreement": ("model_stock/rows/sparse", "model_stock/disagreeing/opposite"),
    "equal magnitudes at the ends": ("breadcrumbs*/*/grid",),
    "something is kept": ("breadcrumbs*/*/one",),
    "equal magnitudes in a row": ("della*/*/grid",),
    "one element has no rank": ("della*/*/one",),
    "small changes have weights": ("sce/top 1.0/weights", "sce/top 0.5/weights"),
    "equal variances": ("sce/top 0.1/grid",),
    "one element is selected": ("sce/top 0.5/one",),
    "nothing to select from": ("sce/alone/apart",),
    "weights that cancel": ("task_arithmetic/cancelling/apart",),
}


def deviating(what: str) -> list[Case]:
    """The cases of one deviation."""
    return list(of(*PATTERNS[what]))


#: The deviation of every case that has one.
DEVIATIONS: dict[str, str] = {case.id: what for what in PATTERNS for case in deviating(what)}
