"""One job: how far it is, what it found, and what was proven."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from api import svg
from api.access import Reading, SettingsIn
from api.details import detail_of
from api.pages import pictures, refinements, training
from api.pages.actions import actions
from api.pages.verdict import beside, tell
from api.progress import leading
from api.schemas.failures import FailureOut
from api.schemas.trials import TrialOut
from api.templating import fragment, page
from core.recipe.naming import used_names
from core.records import JobRecord, TrialSummary
from core.settings import Settings
from core.states import TrialState
from store import artifacts, jobs, summaries, trials
from store.session import ReadSession

router = APIRouter()

ROWS = 200
_UNDER_WAY = (TrialState.RUNNING, TrialState.WAITING, TrialState.QUEUED)


@router.get("/jobs/{job_id}")
def job_page(job_id: str, s: Reading, settings: SettingsIn) -> Response:
    """The whole page."""
    return page("job.html", **_content(s, settings, job_id))


@router.get("/fragments/jobs/{job_id}")
def job_fragment(job_id: str, request: Request, s: Reading, settings: SettingsIn) -> Response:
    """Its changing part."""
    content = _content(s, settings, job_id)
    return fragment(request, content.pop("live"), **content)


def _content(s: ReadSession, settings: Settings, job_id: str) -> dict[str, Any]:
    job = jobs.get(s, job_id)
    if job.training is not None:
        return training.content(s, settings, job)
    every, kept = summaries.of_job(s, job_id), artifacts.of_job(s, job_id)
    candidates = [trial for trial in every if trial.origin != "parent"]
    refined = refinements.told(s, job.id)
    colours = pictures.methods_of(job.request)
    detail = detail_of(s, job, every)
    own = (detail.generator,) if detail.generator is not None else ()
    return {
        "live": "job_live.html",
        "job": job,
        "detail": detail,
        "state": "".join(noun.model_dump_json() for noun in (job, *every, *kept, *own)) + repr(refined),
        "told": tell(job.verdict) if job.verdict else None,
        "beside": beside(job.verdict) if job.verdict else [],
        "failure": FailureOut.of(job.failure),
        "charts": _charts(job, every, colours),
        "refinements": [(way, refinements.pictures(way)) for way in refined],
        "colours": colours,
        "used": {trial.method for trial in candidates},
        "squares": {trial.method for trial in candidates if trial.family != "merge"},
        "stack": _stack(s, job, candidates),
        "sources": {model.name: position for position, model in enumerate(job.request.models)},
        "trials": [TrialOut.of(trial) for trial in _ordered(candidates)[:ROWS]],
        "hidden": max(0, len(candidates) - ROWS),
        "failures": _failures(every),
        "artifacts": kept,
        "own": training.own(detail.generator),
        "actions": actions(job.state),
        "final": job.state.final,
        "poll_seconds": settings.poll_seconds,
    }


def _charts(job: JobRecord, every: Sequence[TrialSummary], colours: dict[str, int]) -> dict[str, Any]:
    """The history, drawn for wide and for narrow windows; the style sheet shows one of them."""
    dots, levels = pictures.dots(job.request, every, colours), pictures.levels(every)
    if not dots:
        return {}
    return {
        "wide": svg.history(dots, levels, width=940, height=330),
        "narrow": svg.history(dots, levels, width=380, height=280),
    }


def _stack(s: ReadSession, job: JobRecord, candidates: Sequence[TrialSummary]) -> dict[str, Any] | None:
    """The layer layout of the leader."""
    best = leading(candidates)
    if best is None:
        return None
    trial = trials.get(s, best.id)
    colours = {model.name: position for position, model in enumerate(job.request.models)}
    # What a search makes are merges and layouts, whose sources show without their depths.
    slots = pictures.slots(trial.resolved, used_names(trial.recipe, {}), colours)
    return {"trial": best, "picture": svg.layout(slots), "layers": len(trial.resolved.layers)}


def _ordered(candidates: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Those under way first, then the best (scored on most items before others), failures last."""

    def rank(trial: TrialSummary) -> tuple[bool, bool, int, float, int]:
        missing = trial.macro is None
        return trial.state not in _UNDER_WAY, missing, -trial.scored_items, -(trial.macro or 0.0), trial.number

    return sorted(candidates, key=rank)


def _failures(every: Sequence[TrialSummary]) -> list[tuple[FailureOut, int, list[TrialSummary]]]:
    """Failures by code, the commonest first: an example, how many, and the first few trials."""
    failed = [trial for trial in every if trial.failure is not None]
    found = []
    for code, count in Counter(trial.failure.code for trial in failed if trial.failure).most_common():
        group = [trial for trial in failed if trial.failure and trial.failure.code == code]
        shown = FailureOut.of(group[0].failure)
        assert shown is not None
        found.append((shown, count, group[:8]))
    return found
