"""Transactions: one request or one step is one, committed here and nowhere else. Bells ring after the commit.

Isolation is READ COMMITTED. What must not interleave is held apart by guarded updates and by the lock on a job's row.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event, exc, text

from core.errors import InvalidInputError, ServiceUnavailableError
from store.bell import Bell

CONNECT_SECONDS = 5
POOL_SIZE, POOL_OVERFLOW, POOL_WAIT_SECONDS = 5, 25, 10
#: A frozen process must not hold a job's row for ever, nor may anyone wait for ever for one. Both limits leave room for
#: a sampler that loads a long study while its job's row is locked.
_ON_CONNECT = "SET TIME ZONE 'UTC'; SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = '300s'"


class ReadSession:
    """A read-only transaction in progress."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run one statement."""
        return self.connection.execute(statement, parameters)


class Session(ReadSession):
    """A transaction in progress.

    Attributes:
        bells: what to ring after the commit.
        locked: jobs whose row this transaction has locked.
        guarded: steps this transaction has proved to hold; cancelling their job leaves them to their holder.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.bells: dict[tuple[str, str, str], None] = {}
        self.locked: set[str] = set()
        self.guarded: set[str] = set()

    def ring(self, queue: str, kind: str, id: str) -> None:
        """Ring once the transaction has committed; never if it rolls back."""
        self.bells[queue, kind, id] = None


class Database:
    """A pool of connections, and the bell.

    Args:
        url: SQLAlchemy URL (`postgresql+psycopg://...`).
        broker_url: where to ring; None rings nowhere.
    """

    def __init__(self, url: str, broker_url: str | None = None) -> None:
        self.url = url
        self.bell = Bell(broker_url) if broker_url is not None else None
        self.engine = _engine(url)
        _open.add(self)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back if the block raises.

        Raises:
            ServiceUnavailableError: the database does not answer.
            InvalidInputError: a value that no column can hold.
        """
        with _named_errors(), self.engine.begin() as connection:
            session = Session(connection)
            yield session
        if self.bell is not None:
            for queue, kind, id in session.bells:
                self.bell.ring(queue, kind, id)

    @contextmanager
    def reading(self) -> Iterator[ReadSession]:
        """One read-only transaction.

        Raises:
            ServiceUnavailableError: the database does not answer.
        """
        with _named_errors(), self.engine.connect() as connection:
            yield ReadSession(connection.execution_options(postgresql_readonly=True))

    def ping(self) -> None:
        """Return if the database answers.

        Raises:
            ServiceUnavailableError: it does not.
        """
        with self.reading() as s:
            s.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close every pooled connection, and the broker's."""
        self.engine.dispose()
        if self.bell is not None:
            self.bell.close()


def _engine(url: str) -> Engine:
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_WAIT_SECONDS,
        connect_args={"connect_timeout": CONNECT_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.execute(_ON_CONNECT)
        connection.commit()

    return engine


@contextmanager
def _named_errors() -> Iterator[None]:
    """Tell apart what the caller can do something about: a database that is away, a value it cannot hold."""
    try:
        yield
    except exc.DataError as error:
        raise InvalidInputError(f"the database refuses a value: {_first_line(error)}; send plain text") from error
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise ServiceUnavailableError(
            f"the database must answer, but: {_first_line(error)}; see that it runs, then try again"
        ) from error


def _first_line(error: exc.SQLAlchemyError) -> str:
    return (str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__])[0]


_open: weakref.WeakSet[Database] = weakref.WeakSet()


def _forget_parents_connections() -> None:
    """A forked child must not talk over its parent's sockets, nor close them."""
    for database in _open:
        database.engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_parents_connections)
