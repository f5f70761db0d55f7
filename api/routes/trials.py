"""Trials of a job."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api.access import Cursor, Limit, Reading, SettingsIn, Writing
from api.answers import page_out, problems
from api.schemas.page import PageOut
from api.schemas.steps import StepOut
from api.schemas.trials import ExportIn, TrialDetail, TrialOut
from api.strict import StrictRoute
from store import artifacts, exports, jobs, summaries, trials

router = APIRouter(prefix="/v1", tags=["trials"], route_class=StrictRoute)

Order = Annotated[Literal["number", "score"], Query(description="By number, or best macro score first.")]


@router.get("/jobs/{job_id}/trials", responses=problems(404, 422))
def list_trials(
    job_id: str,
    request: Request,
    response: Response,
    s: Reading,
    settings: SettingsIn,
    limit: Limit = None,
    cursor: Cursor = None,
    order: Order = "number",
) -> PageOut[TrialOut]:
    """A job's trials, its parents among them."""
    jobs.get(s, job_id)
    page = summaries.page(s, job_id, limit or settings.page_size, cursor, order)
    return page_out(request, response, page, TrialOut.of)


@router.get("/trials/{trial_id}", responses=problems(404))
def get_trial(trial_id: str, s: Reading) -> TrialDetail:
    """A trial with its recipe, in short and resolved."""
    trial = trials.get(s, trial_id)
    kept = tuple(a.id for a in artifacts.of_job(s, trial.job_id) if a.trial_id == trial.id)
    return TrialDetail.of_record(trial, kept)


@router.post("/trials/{trial_id}:export", status_code=202, responses=problems(404, 409, 413, 415, 422))
def export_trial(trial_id: str, response: Response, s: Writing, wanted: ExportIn | None = None) -> StepOut:
    """Ask for a trial's checkpoint. Once the step is done it is among the trial's artifacts.

    While an export of the trial is under way, asking again answers with that one.
    """
    step = exports.ask(s, trial_id, (wanted or ExportIn()).max_shard_bytes)
    response.headers["Location"] = f"/v1/steps/{step.id}"
    return StepOut.of(step)
