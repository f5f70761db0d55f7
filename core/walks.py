"""What gradient refinement costs a search, reckoned before the search is posted."""

from __future__ import annotations

from typing import NamedTuple

from core.catalog import catalog
from core.jobs import SearchJob
from core.refinement import allowance, applies, asked
from core.space_spec import Interval, MergeFamily

#: Share of its items that a walk takes before kept-back items end it, in the three courses; nine tenths on the
#: nursery families that are told of in docs/search.md.
_TAKEN = (0.3, 0.9, 1.0)


class Walks(NamedTuple):
    """Refinements of one course, and item evaluations of all of them together."""

    number: int
    items: float


def walks_of(job: SearchJob) -> tuple[Walks, Walks, Walks]:
    """The refinements that a job will see in the three courses; none of a job that refines nothing."""
    structures = min(_smooth(job), job.refine.structures)
    if not structures or not applies(job.refine, job.budget.trials, named=job.strategy.name != "auto"):
        return Walks(0, 0.0), Walks(0, 0.0), Walks(0, 0.0)
    every = asked(job.refine, structures)
    each, most = allowance(job.refine, job.budget.trials, job.budget.item_evaluations, every)
    counts = [min(most, count) for count in (structures, structures, every)]
    cheap, likely, dear = (Walks(n, n * share * each) for n, share in zip(counts, _TAKEN, strict=True))
    return cheap, likely, dear


def _smooth(job: SearchJob) -> int:
    """Methods of which the space searches a smooth parameter: there are as many structures to refine, or more."""
    merges = [family for family in job.space.families if isinstance(family, MergeFamily)]
    return sum(_searched(family, method) for family in merges for method in family.methods)


def _searched(family: MergeFamily, method: str) -> bool:
    info = catalog().method(method)
    wishes = [(family.params.get(spec.name), spec.searched) for spec in info.params if spec.name in info.smooth]
    return any(isinstance(wish, Interval) or (wish is None and usual) for wish, usual in wishes)
