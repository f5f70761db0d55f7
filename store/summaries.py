"""Trials in short, and jobs in a few numbers: what lists, charts and the dashboard read every few seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import JSONB

from core.records import JobTally, TrialSummary
from store import rows
from store.page import Page
from store.session import ReadSession
from store.tables import trials
from store.trials import Order, paged

_RECIPE = trials.c.recipe.cast(JSONB)
_MERGE, _PRESET = _RECIPE["merge"]["method"].astext, _RECIPE["layout"]["preset"].astext
_ARM = _RECIPE["generation"]["arm"].astext
_FAMILY = case(
    (_ARM.is_not(None), "generation"), (_MERGE.is_not(None), "merge"), (_PRESET.is_not(None), "layout"), else_="slices"
)
_METHOD = func.coalesce(_ARM, _MERGE, _PRESET, "slices")
_COLUMNS = [trials.c[name] for name in TrialSummary.model_fields if name not in ("family", "method")]


_QUERY = select(*_COLUMNS, _FAMILY.label("family"), _METHOD.label("method"))


def page(
    s: ReadSession, job_id: str, limit: int, cursor: str | None = None, order: Order = "number"
) -> Page[TrialSummary]:
    """Trials of a job as `store.trials.page` orders them, without their recipes."""
    return paged(s, _QUERY.where(trials.c.job_id == job_id), limit, cursor, order, _summary)


def of_job(s: ReadSession, job_id: str) -> list[TrialSummary]:
    """Every trial of a job without its recipe, by number."""
    found = s.execute(_QUERY.where(trials.c.job_id == job_id).order_by(trials.c.number))
    return [_summary(row) for row in found]


def tallies(s: ReadSession, job_ids: Sequence[str]) -> dict[str, JobTally]:
    """A tally for each of `job_ids`."""
    parent = trials.c.origin == "parent"
    states: dict[str, dict[str, int]] = {id: {} for id in job_ids}
    counted = select(trials.c.job_id, trials.c.state, func.count().label("n"))
    counted = counted.where(trials.c.job_id.in_(job_ids), ~parent).group_by(trials.c.job_id, trials.c.state)
    for row in s.execute(counted):
        states[row.job_id][row.state] = row.n
    # Candidates scored on fewer items are not comparable: only those that were scored on most compete.
    leading = (
        select(trials.c.job_id, parent.label("parent"), trials.c.macro)
        .distinct(trials.c.job_id, parent)
        .where(trials.c.job_id.in_(job_ids), trials.c.macro.is_not(None))
        .order_by(trials.c.job_id, parent, trials.c.scored_items.desc(), trials.c.macro.desc())
    )
    best = {(row.job_id, row.parent): row.macro for row in s.execute(leading)}
    return {
        id: JobTally(job_id=id, states=states[id], best=best.get((id, False)), parent=best.get((id, True)))
        for id in job_ids
    }


def _summary(row: Any) -> TrialSummary:
    return rows.build(TrialSummary, row)
