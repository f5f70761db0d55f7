"""One leader among processes: an advisory lock that the database drops when its holder's connection ends."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from store.session import Database

_log = logging.getLogger(__name__)


class Leader:
    """A candidate for one lead; ask `held` before every piece of work that only the leader does."""

    def __init__(self, database: Database, key: str) -> None:
        self._database = database
        self._number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], signed=True)
        self._connection: Connection | None = None

    def held(self) -> bool:
        """Whether this process leads now. It takes a lead nobody has; while the database is away, nobody leads."""
        try:
            return self._still_held() or self._taken()
        except SQLAlchemyError as error:
            _log.warning("the lead is given up: %s", error)
            self._drop()
            return False

    def resign(self) -> None:
        """Let another one lead."""
        self._drop()

    def _still_held(self) -> bool:
        if self._connection is None:
            return False
        self._connection.execute(text("SELECT 1"))
        return True

    def _taken(self) -> bool:
        # Autocommit, so that the connection idles outside any transaction.
        fresh = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._connection = fresh
        if fresh.execute(text("SELECT pg_try_advisory_lock(:number)"), {"number": self._number}).scalar_one():
            return True
        self._drop()
        return False

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Closed for good, not pooled: a pooled connection would go on holding the lock.
            connection.invalidate()
            connection.close()


@contextmanager
def leader(database: Database, key: str) -> Iterator[Leader]:
    """Stand for the lead under `key` within the block, without waiting for it."""
    candidate = Leader(database, key)
    try:
        yield candidate
    finally:
        candidate.resign()
