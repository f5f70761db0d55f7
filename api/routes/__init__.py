"""The HTTP API, one module per noun."""

from __future__ import annotations

from fastapi import APIRouter

from api.routes import artifacts, catalog, health, jobs, models, problems, recipes, steps, trials

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    jobs.estimates,
    trials.router,
    steps.router,
    models.router,
    recipes.router,
    artifacts.router,
    catalog.router,
    problems.router,
    health.router,
)
