"""Shared fixtures: real servers for the whole run, and a fresh migrated database for every test that asks for one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

if TYPE_CHECKING:
    from huarizo.embedded.supervisor import EmbeddedServers
    from store.session import Database

#: Nothing in a test outlives a crash of the machine, so the server need not wait for the disk.
_FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "autovacuum = off")


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """PostgreSQL and the broker, started once per run: `.database_url`, `.broker_url`."""
    from huarizo.embedded.supervisor import EmbeddedServers

    with (
        tempfile.TemporaryDirectory(prefix="huarizo-tests-") as folder,
        # Root's servers run as another user, who must be able to enter.
        EmbeddedServers(_passable(Path(folder))) as running,
    ):
        with _administrator(running) as connection:
            for setting in _FAST:
                connection.execute(f"ALTER SYSTEM SET {setting}")  # type: ignore[call-overload]
            connection.execute("SELECT pg_reload_conf()")
        yield running


@pytest.fixture(scope="session")
def template(servers: EmbeddedServers) -> str:
    """The name of a migrated, empty database that others are copied from."""
    import migrations

    name = "template_migrated"
    with _administrator(servers) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    migrations.upgrade(_url_of(servers, name))
    return name


@pytest.fixture
def empty_database_url(servers: EmbeddedServers) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    yield from _fresh(servers, "template1")


@pytest.fixture
def database_url(servers: EmbeddedServers, template: str) -> Iterator[str]:
    """The URL of a fresh migrated database."""
    yield from _fresh(servers, template)


@pytest.fixture
def database(servers: EmbeddedServers, database_url: str) -> Iterator[Database]:
    """A fresh migrated database whose transactions ring the real broker."""
    from store.session import Database

    opened = Database(database_url, servers.broker_url)
    yield opened
    opened.dispose()


def _passable(folder: Path) -> Path:
    folder.chmod(0o711)
    return folder


def _fresh(servers: EmbeddedServers, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with _administrator(servers) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]
    yield _url_of(servers, name)
    with _administrator(servers) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


def _url_of(servers: EmbeddedServers, name: str) -> str:
    return servers.database_url.rsplit("/", 1)[0] + f"/{name}"


def _administrator(servers: EmbeddedServers) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True)
