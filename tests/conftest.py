"""Shared fixtures: real servers for the whole run, and a fresh migrated database for every test that asks for one."""

from __future__ import annotations

import functools
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

if TYPE_CHECKING:
    from huarizo.embedded.supervisor import EmbeddedServers
    from store.session import Database

#: Nothing in a test outlives a crash of the machine, so the server need not wait for the disk.
_FAST = ("fsync = off", "synchronous_commit = off", "full_page_writes = off", "autovacuum = off")


def pytest_configure() -> None:
    """A run started in the background, or under nohup, inherits signals that are ignored; tests send them."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """PostgreSQL and the broker, started once per run: `.database_url`, `.broker_url`."""
    from huarizo.embedded.supervisor import EmbeddedServers

    with (
        tempfile.TemporaryDirectory(prefix="huarizo-tests-") as folder,
        # Root's servers run as another user, who must be able to enter.
        EmbeddedServers(_passable(Path(folder))) as running,
    ):
        with _connect(running.database_url) as connection:
            for setting in _FAST:
                _run(connection, f"ALTER SYSTEM SET {setting}")
            _run(connection, "SELECT pg_reload_conf()")
        yield running


@pytest.fixture(scope="session")
def databases(servers: EmbeddedServers) -> Iterator[Databases]:
    """Makes databases."""
    with _connect(servers.database_url) as administrator:
        yield Databases(servers.database_url, administrator)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    url = databases.create("template1")
    yield url
    databases.drop(url)


@pytest.fixture
def own_database_url(databases: Databases) -> Iterator[str]:
    """The URL of a fresh migrated database whose tables the test may change."""
    url = databases.create(databases.template)
    yield url
    databases.drop(url)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The URL of a migrated database without rows. Its name is new, so that no late client of another test finds it."""
    url = databases.take()
    yield url
    databases.give_back(url)


@pytest.fixture
def database(servers: EmbeddedServers, database_url: str) -> Iterator[Database]:
    """A migrated database without rows, whose transactions ring the real broker."""
    from store.session import Database

    opened = Database(database_url, servers.broker_url)
    yield opened
    opened.dispose()


class Databases:
    """Databases of one server. Emptying a used one takes a tenth of the time that copying the template does."""

    def __init__(self, url: str, administrator: psycopg.Connection[Any]) -> None:
        self._stem = url.rsplit("/", 1)[0]
        self._administrator = administrator
        self._spare: list[str] = []

    @functools.cached_property
    def template(self) -> str:
        """The name of a migrated database that others are copied from."""
        import migrations

        url = self.create("template1")
        migrations.upgrade(url)
        return _name(url)

    def create(self, template: str) -> str:
        """A fresh copy."""
        name = f"test_{uuid4().hex}"
        _run(self._administrator, f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"{self._stem}/{name}"

    def drop(self, url: str) -> None:
        """End a database, whoever uses it."""
        _run(self._administrator, f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def take(self) -> str:
        """A migrated database without rows."""
        return self._spare.pop() if self._spare else self.create(self.template)

    def give_back(self, url: str) -> None:
        """Throw everybody out of a database, empty it and give it another name."""
        try:
            with _connect(url) as connection:
                _run(connection, _END_OTHERS)
                rows = _run(connection, _TABLES).fetchall()
                if used := [name for (name,) in rows if _run(connection, f"SELECT FROM {name} LIMIT 1").rowcount]:
                    _run(connection, f"TRUNCATE {', '.join(used)} RESTART IDENTITY CASCADE")
            fresh = f"test_{uuid4().hex}"
            _run(self._administrator, f"ALTER DATABASE {_name(url)} RENAME TO {fresh}")
        except psycopg.Error:  # somebody came back meanwhile
            self.drop(url)
        else:
            self._spare.append(f"{self._stem}/{fresh}")


_TABLES = (
    "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> "
    "'alembic_version' OR schemaname = 'optuna' AND tablename NOT IN ('alembic_version', 'version_info')"
)
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = current_database() AND "
    "pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def _passable(folder: Path) -> Path:
    folder.chmod(0o711)
    return folder


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def _run(connection: psycopg.Connection[Any], statement: str) -> psycopg.Cursor[Any]:
    return connection.execute(statement)  # type: ignore[call-overload, no-any-return]


def _name(url: str) -> str:
    return url.rsplit("/", 1)[1]
