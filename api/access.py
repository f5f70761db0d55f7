"""What routes are given: the settings, and one transaction per request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Query, Request

from core.settings import Settings
from store.session import Database, ReadSession, Session


def settings_of(request: Request) -> Settings:
    """The settings of this process."""
    settings: Settings = request.app.state.settings
    return settings


def database_of(request: Request) -> Database:
    """The database of this process."""
    database: Database = request.app.state.database
    return database


DatabaseIn = Annotated[Database, Depends(database_of)]
SettingsIn = Annotated[Settings, Depends(settings_of)]


def writing(database: DatabaseIn) -> Iterator[Session]:
    """One transaction around the route."""
    with database.transaction() as session:
        yield session


def reading(database: DatabaseIn) -> Iterator[ReadSession]:
    """One read-only transaction around the route."""
    with database.reading() as session:
        yield session


# `function` ends the transaction before the answer is sent: nobody is told of a job that was not committed.
Writing = Annotated[Session, Depends(writing, scope="function")]
Reading = Annotated[ReadSession, Depends(reading, scope="function")]

Limit = Annotated[int | None, Query(ge=1, le=200, description="Items per page; default HUARIZO_PAGE_SIZE.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")]
