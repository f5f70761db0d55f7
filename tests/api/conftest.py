"""The API under a real uvicorn on a free port, over a fresh database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from api.app import create_app
from core.settings import Settings
from store.session import Database
from tests.api import seeds

if TYPE_CHECKING:
    from huarizo.embedded.supervisor import EmbeddedServers
    from tests.conftest import Databases


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service whose database does not exist: for what is decided before anyone asks it."""
    folder = tmp_path_factory.mktemp("bare")
    settings = settings_of(dict.fromkeys(("models", "tasks", "artifacts"), folder))
    with serving(settings, Database("postgresql+psycopg://127.0.0.1:1/none")) as address:
        with httpx.Client(base_url=address, timeout=20, trust_env=False) as found:
            yield found


@pytest.fixture(scope="session")
def library(
    servers: EmbeddedServers, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, Database]]:
    """A client of a service with three ready parents and one finished job, and its database: to be read only."""
    places = make_folders(tmp_path_factory.mktemp("library"))
    url = databases.take()
    database = Database(url, servers.broker_url)
    seeds.seeded(database, places["artifacts"])
    with serving(settings_of(places), database) as address:
        with httpx.Client(base_url=address, timeout=20, trust_env=False) as found:
            yield found, database
    databases.drop(url)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A model root with three checkpoints in name only, a task folder, an artifact root."""
    return make_folders(tmp_path)


def make_folders(place: Path) -> dict[str, Path]:
    """Those folders under `place`."""
    for name in ("models/nursery/base", "models/nursery/maths", "models/nursery/code", "tasks", "artifacts"):
        (place / name).mkdir(parents=True)
    return {name: place / name for name in ("models", "tasks", "artifacts")}


@pytest.fixture
def settings(folders: dict[str, Path]) -> Settings:
    """Settings over those folders."""
    return settings_of(folders)


def settings_of(folders: dict[str, Path], **changes: Any) -> Settings:
    """Settings over folders, some of them changed."""
    return Settings(
        model_roots=(folders["models"],),
        task_folders=(folders["tasks"],),
        artifacts=folders["artifacts"],
        max_body_bytes=200_000,
        poll_seconds=0.3,
        **changes,
    )


@contextmanager
def serving(settings: Settings, database: Database) -> Iterator[str]:
    """The address of a service that runs on a thread of its own."""
    app = create_app(settings, database)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "uvicorn did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def address(settings: Settings, database: Database) -> Iterator[str]:
    """The address of a running service."""
    with serving(settings, database) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=address, timeout=20, trust_env=False) as found:
        yield found
