"""Jobs: posted, watched, paused, extended, cloned, cancelled."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response

from api.access import Cursor, Limit, Reading, SettingsIn, Writing
from api.answers import page_out, problems, tagged
from api.details import detail_of
from api.estimation import estimate_of
from api.schemas.jobs import EXAMPLE, TRAINING_EXAMPLE, CloneIn, EventOut, ExtendIn, JobDetail, JobOut
from api.schemas.page import PageOut
from api.strict import StrictRoute
from api.submission import check_submission, check_training, cloned
from core.estimate import Estimate
from core.jobs import GeneratorJob, Job, SearchJob
from core.records import JobRecord
from core.states import JobState
from store import events, jobs, summaries
from store.session import ReadSession

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)
#: A verb on all jobs stands beside their address, not below it.
estimates = APIRouter(prefix="/v1", tags=["jobs"], route_class=StrictRoute)

PostedSearch = Annotated[SearchJob, Body(openapi_examples={"search": {"summary": "A search", "value": EXAMPLE}})]
PostedJob = Annotated[
    Job,
    Body(
        openapi_examples={
            "search": {"summary": "A search", "value": EXAMPLE},
            "generator": {"summary": "The training of a generator of weights", "value": TRAINING_EXAMPLE},
        }
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body answers with the job it created first; with another body, 409.",
    ),
]


@router.post("", status_code=202, responses=problems(409, 413, 415, 422))
def create_job(
    job: PostedJob, response: Response, s: Writing, settings: SettingsIn, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Post a job. Everything that can be known without reading weights is checked at once."""
    job = check_training(s, job, settings) if isinstance(job, GeneratorJob) else check_submission(s, job, settings)
    record, created = jobs.create(s, job, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    if not created:
        response.headers["Idempotent-Replayed"] = "true"
    return _short(s, record)


@estimates.post("/jobs:estimate", responses=problems(413, 415, 422))
def estimate_job(
    job: PostedSearch,
    s: Reading,
    settings: SettingsIn,
    device: Annotated[
        str | None,
        Query(max_length=100, description="Name of the devices that will score, such as `cpu` or `NVIDIA H200`."),
    ] = None,
    workers: Annotated[int | None, Query(ge=1, le=10_000, description="How many of them; `parallel` at most.")] = None,
) -> Estimate:
    """What a search will cost, before it is posted; every number that goes in is in the answer.

    Ranges are `[least, likely, most]`. The job is checked as if it were posted; nothing is written.
    """
    return estimate_of(s, check_submission(s, job, settings), settings, device=device, workers=workers)


@router.get("", responses=problems(422))
def list_jobs(
    request: Request,
    response: Response,
    s: Reading,
    settings: SettingsIn,
    limit: Limit = None,
    cursor: Cursor = None,
    state: JobState | None = None,
) -> PageOut[JobOut]:
    """Jobs, newest first."""
    page = jobs.page(s, limit or settings.page_size, cursor, state)
    tallies = summaries.tallies(s, [job.id for job in page.items])
    return page_out(request, response, page, lambda job: JobOut.of(job, tallies[job.id]))


@router.get("/{job_id}", responses={304: {"description": "As the client has it."}, **problems(404)})
def get_job(job_id: str, request: Request, s: Reading, settings: SettingsIn) -> JobDetail:
    """A job with its progress. Poll it with `If-None-Match`; `Retry-After` says how often while it is not final.

    The ETag is weak: running times do not count as changes.
    """
    detail = detail_of(s, jobs.get(s, job_id), summaries.of_job(s, job_id))
    again = {} if JobState(detail.state).final else {"Retry-After": str(math.ceil(settings.poll_seconds))}
    clock = {"progress": {"seconds": True, "items_per_second": True, "eta_seconds": True, "budget": True}}
    return tagged(request, detail, clock=clock, headers=again)  # type: ignore[return-value]


@router.post("/{job_id}:cancel", responses=problems(404, 409))
def cancel_job(job_id: str, s: Writing) -> JobOut:
    """Cancel a job with everything it has running. Cancelling twice is once."""
    return _short(s, jobs.cancel(s, job_id))


@router.post("/{job_id}:pause", responses=problems(404, 409))
def pause_job(job_id: str, s: Writing) -> JobOut:
    """Let what runs finish and start nothing more. Pausing twice is once."""
    job = jobs.get(s, job_id)
    return _short(s, job if job.state is JobState.PAUSED else jobs.pause(s, job_id))


@router.post("/{job_id}:resume", responses=problems(404, 409))
def resume_job(job_id: str, s: Writing) -> JobOut:
    """Go on with a paused job. Resuming one that runs changes nothing."""
    job = jobs.get(s, job_id)
    return _short(s, job if job.state is JobState.RUNNING else jobs.resume(s, job_id))


@router.post("/{job_id}:extend", responses=problems(404, 409, 413, 415, 422))
def extend_job(job_id: str, wanted: ExtendIn, s: Writing) -> JobOut:
    """Raise limits of a search that has not ended, each to a new total. Asking for what is in force changes nothing.

    A search that has ended is final: clone its job with another budget and a warm start.
    """
    return _short(s, jobs.extend(s, job_id, wanted.budget))


@router.post("/{job_id}:clone", status_code=202, responses=problems(404, 409, 413, 415, 422))
def clone_job(
    job_id: str,
    response: Response,
    s: Writing,
    settings: SettingsIn,
    wanted: CloneIn | None = None,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """Post a job's request again with some fields changed. What both jobs score alike is scored once."""
    request = cloned(jobs.get(s, job_id), wanted or CloneIn())
    return create_job(request, response, s, settings, idempotency_key)


@router.get("/{job_id}/events", responses=problems(404, 422))
def list_events(
    job_id: str,
    s: Reading,
    settings: SettingsIn,
    after: Annotated[int, Query(ge=0, lt=2**63, description="Id of the last event seen.")] = 0,
    limit: Limit = None,
) -> PageOut[EventOut]:
    """What happened to a job, oldest first; pass the last id as `after` to read on."""
    jobs.get(s, job_id)
    found = events.after(s, job_id, after, limit or 200)
    return PageOut(items=tuple(EventOut.of(event) for event in found), next_cursor=None)


def _short(s: ReadSession, job: JobRecord) -> JobOut:
    return JobOut.of(job, summaries.tallies(s, [job.id])[job.id])
