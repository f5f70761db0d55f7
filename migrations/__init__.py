"""The schema's history. `upgrade` brings a database to its head; the embedded and the composed service both call it."""

from __future__ import annotations

import functools
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

FOLDER = Path(__file__).parent


def configuration(url: str | None = None) -> Config:
    """Alembic's configuration over this folder, for the database at `url`."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` up to a revision. Two processes doing so at once take turns."""
    command.upgrade(configuration(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to a revision (`base`: empty)."""
    command.downgrade(configuration(url), revision)


def current(url: str) -> str | None:
    """The revision the database at `url` is at; None if it was never migrated."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


@functools.cache
def head() -> str:
    """The latest revision of this code."""
    found = ScriptDirectory.from_config(configuration()).get_current_head()
    assert found is not None
    return found


def check(url: str) -> list[str]:
    """How the database at `url` differs from `store.tables`, one line each; empty if it does not."""
    from store.tables import metadata

    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [repr(difference) for difference in compare_metadata(context, metadata)]
