"""How Alembic reaches the database: the caller's URL, else HUARIZO_DATABASE_URL."""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, text

from core.settings import Settings
from store.tables import metadata

#: The key of the advisory lock that lets one process at a time migrate.
_TURN = 0x4875_6172_697A_6F


def _url() -> str:
    url = context.config.attributes.get("url") or Settings().database_url
    if not url:
        raise CommandError("a migration needs a database, but no URL is set: set HUARIZO_DATABASE_URL")
    return str(url)


def _prepare(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _TURN})
    # Rather fail and be tried again than hold up every query behind a lock that is waited for.
    connection.execute(text("SET lock_timeout = '3s'"))
    connection.commit()


def _run() -> None:
    engine = create_engine(_url(), poolclass=NullPool)
    with engine.connect() as connection:
        _prepare(connection)
        context.configure(
            connection=connection, target_metadata=metadata, compare_type=True, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()


def _print() -> None:
    context.configure(url=_url(), target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _print()
else:
    _run()
