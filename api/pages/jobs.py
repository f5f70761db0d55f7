"""The list of jobs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from api.access import Cursor, Reading, SettingsIn
from api.schemas.jobs import JobOut
from api.templating import fragment, page
from core.settings import Settings
from store import jobs, summaries
from store.session import ReadSession

router = APIRouter()


@router.get("/")
def jobs_page(s: Reading, settings: SettingsIn, cursor: Cursor = None) -> Response:
    """The whole page."""
    return page("jobs.html", **_content(s, settings, cursor))


@router.get("/fragments/jobs")
def jobs_fragment(request: Request, s: Reading, settings: SettingsIn, cursor: Cursor = None) -> Response:
    """Its changing part."""
    return fragment(request, "jobs_live.html", **_content(s, settings, cursor))


def _content(s: ReadSession, settings: Settings, cursor: str | None) -> dict[str, Any]:
    found = jobs.page(s, settings.page_size, cursor)
    tallies = summaries.tallies(s, [job.id for job in found.items])
    rows = [(JobOut.of(job, tallies[job.id]), job.posted) for job in found.items]
    state = "".join(job.model_dump_json() for job, _request in rows)
    return {
        "state": state,
        "rows": rows,
        "cursor": cursor,
        "next_cursor": found.next_cursor,
        "poll_seconds": settings.poll_seconds,
    }
