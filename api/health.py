"""Whether what the service needs is there: database, schema, broker."""

from __future__ import annotations

from collections.abc import Callable

import migrations
from core.errors import HuarizoError, ServiceUnavailableError
from store.session import Database


def missing_parts(database: Database) -> dict[str, str]:
    """What is wrong, by part; empty if the service can work."""
    parts: dict[str, Callable[[Database], None]] = {"database": Database.ping, "schema": _schema, "broker": _broker}
    wrong: dict[str, str] = {}
    for name, check in parts.items():
        if name == "schema" and "database" in wrong:
            continue
        try:
            check(database)
        except HuarizoError as error:
            wrong[name] = error.message
    return wrong


PARTS = ("database", "schema", "broker")


def _schema(database: Database) -> None:
    """The schema must be the one this code was written for.

    Raises:
        ServiceUnavailableError: it is another.
    """
    found, wanted = migrations.current(database.url), migrations.head()
    if found != wanted:
        raise ServiceUnavailableError(f"the schema must be at {wanted!r}, but is at {found!r}: run `huarizo migrate`")


def _broker(database: Database) -> None:
    """The broker must answer.

    Raises:
        ServiceUnavailableError: it does not, or none is configured.
    """
    if database.bell is None:
        raise ServiceUnavailableError("work is rung for over a broker, but none is configured: set HUARIZO_BROKER_URL")
    database.bell.ping()
