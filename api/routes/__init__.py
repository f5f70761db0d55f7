"""The HTTP API, one module per noun."""

from __future__ import annotations

from fastapi import APIRouter

from api.routes import artifacts, catalog, explanations, health, jobs, models, problems, recipes, steps, trials

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    jobs.estimates,
    explanations.router,
    trials.router,
    steps.router,
    models.router,
    recipes.router,
    artifacts.router,
    catalog.router,
    problems.router,
    health.router,
)
