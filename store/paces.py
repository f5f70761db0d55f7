"""How fast earlier jobs were scored: what estimates of new ones rest on."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, Integer, cast, func, select

from core.records import StepKind
from core.states import StepState
from store.session import ReadSession
from store.tables import steps, trials


class Timed(NamedTuple):
    """A finished step that scored items, on a device of this name.

    Attributes:
        seconds: of scoring, building not counted.
        build_seconds: of the candidate.
    """

    job_id: str
    device: str
    items: int
    seconds: float
    build_seconds: float


def recent(s: ReadSession, limit: int = 300) -> list[Timed]:
    """The newest steps that scored something, by whichever job, newest first."""
    result, kept = steps.c.result, trials.c.provenance
    items = cast(result["items"].astext, Integer)
    build = func.coalesce(_number(result, "build_seconds"), _number(kept, "build_seconds"), 0.0)
    score = func.coalesce(_number(result, "score_seconds"), _number(result, "seconds") - build)
    device = kept["device"].astext
    query = (
        select(steps.c.job_id, device.label("device"), items.label("items"), score.label("score"), build.label("build"))
        .join(trials, trials.c.id == steps.c.trial_id)
        .where(steps.c.kind == StepKind.RUN_TRIAL.value, steps.c.state == StepState.DONE.value)
        .where(items > 0, device.is_not(None), score > 0)
        .order_by(steps.c.finished_at.desc(), steps.c.id)
        .limit(limit)
    )
    return [Timed(row.job_id, row.device, row.items, row.score, row.build) for row in s.execute(query)]


def _number(column: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return cast(column[name].astext, Float)
