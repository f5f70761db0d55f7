"""The dashboard: pages drawn on the server; a little script asks for their changing part again and again."""

from __future__ import annotations

from fastapi import APIRouter

from api.pages import job, jobs

router = APIRouter(include_in_schema=False)
router.include_router(jobs.router)
router.include_router(job.router)
