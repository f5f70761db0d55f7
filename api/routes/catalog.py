"""The catalogue."""

from __future__ import annotations

from fastapi import APIRouter

from api.access import Reading, SettingsIn
from api.answers import problems
from api.tasks import known_tasks
from core.catalog import Catalog, catalog

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/catalog", responses=problems())
def get_catalog(s: Reading, settings: SettingsIn) -> Catalog:
    """Merge methods, layouts, strategies and protocols with their parameters, and every task a job may name."""
    return catalog().evolve(tasks=tuple(sorted(known_tasks(s, settings.task_folders))))
