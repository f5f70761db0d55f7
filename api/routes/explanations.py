"""What a job's search found out: asked for, read as JSON, and told in a report."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse

from api.access import Reading, SettingsIn, Writing
from api.answers import problems
from api.files import artifact_file
from api.report import CONTENT_SECURITY_POLICY, report_of
from api.schemas.steps import StepOut
from store import explanations, jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

#: The file of an explanation's artifact.
FILE = "explain.json"


@router.post("/{job_id}:explain", status_code=202, responses=problems(404, 409))
def explain_job(job_id: str, response: Response, s: Writing) -> StepOut:
    """Ask for an explanation of what the search found out so far, whatever state the job is in.

    While one is under way, asking again answers with that one. Once the step is done it is `/explanation`.
    """
    step = explanations.ask(s, job_id)
    response.headers["Location"] = f"/v1/steps/{step.id}"
    return StepOut.of(step)


@router.get("/{job_id}/explanation", response_class=FileResponse, responses=problems(404))
def get_explanation(job_id: str, s: Reading, settings: SettingsIn) -> FileResponse:
    """The newest explanation: importance, sensitivity, slices, best score against items, rungs, refinements."""
    file = artifact_file(explanations.get(s, job_id), FILE, settings)
    return FileResponse(file.path, media_type="application/json", headers={"X-Content-SHA256": file.sha256})


@router.get("/{job_id}/report", response_class=HTMLResponse, responses=problems(404))
def get_report(job_id: str, s: Reading, settings: SettingsIn) -> HTMLResponse:
    """A job as one self-contained page, to be kept: it loads nothing and needs no service.

    With an explanation (see `:explain`) it shows importance, sensitivity and slices too.
    """
    headers = {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "content-disposition": f'inline; filename="{job_id}.html"',
    }
    return HTMLResponse(report_of(s, jobs.get(s, job_id), settings), headers=headers)
