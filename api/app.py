"""The API and dashboard as one ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware

from api import errors, logs, openapi, pages
from api.edge import Edge
from api.routes import ROUTERS
from core.errors import ServiceUnavailableError
from core.settings import Settings
from store.session import Database

DESCRIPTION = """Huarizo breeds language models: post a search over merges and layer layouts, watch it, and take home
the winner that was proven on held-out items. Failures are RFC 9457 problems; their `code` is stable, see
`/v1/problems`. Long work is answered with 202 and a `Location` to poll."""


def create_app(settings: Settings, database: Database) -> FastAPI:
    """The application over a database; it closes the database's connections when it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        database.dispose()

    app = FastAPI(
        title="Huarizo",
        version=_version(),
        description=DESCRIPTION,
        # The stock documentation pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[Middleware(Edge, settings=settings)],
    )
    app.state.settings, app.state.database = settings, database
    errors.install(app)
    openapi.install(app)
    for router in (*ROUTERS, pages.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    return app


def app_from_env() -> FastAPI:
    """The application as the environment says, for `uvicorn --factory api.app:app_from_env`.

    Raises:
        ServiceUnavailableError: no database is configured.
    """
    settings = Settings()
    logs.configure(settings.log_level)
    if settings.database_url is None:
        raise ServiceUnavailableError("the API needs a database: set HUARIZO_DATABASE_URL or start `huarizo up`")
    return create_app(settings, Database(settings.database_url, settings.broker_url))


def _version() -> str:
    try:
        return version("huarizo")
    except PackageNotFoundError:  # Run from a checkout that is not installed.
        return "0"
