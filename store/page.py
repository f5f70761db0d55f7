"""Pages of a list and the opaque cursors between them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, Table, tuple_

from core.errors import InvalidInputError
from store.session import ReadSession

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list. `next_cursor` leads to those after them, None on the last page."""

    items: tuple[T, ...]
    next_cursor: str | None = None


def encode(order: str, *key: Any) -> str:
    """A cursor: the name of the order it belongs to and the sort key of the last item shown."""
    text = json.dumps([order, *key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(order: str, cursor: str, *kinds: type | tuple[type, ...]) -> list[Any]:
    """The sort key in a cursor.

    Args:
        order: the order the list is in now.
        cursor: what `encode` gave.
        kinds: the Python type of each part of the key.

    Raises:
        InvalidInputError: not a cursor of this list and order.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        named, *key = list(json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)))
    except (ValueError, TypeError) as error:
        raise _foreign(cursor) from error
    fits = len(key) == len(kinds) and all(isinstance(k, t) for k, t in zip(key, kinds, strict=False))
    if named != order or not fits:
        raise _foreign(cursor)
    return key


def newest_first(
    s: ReadSession,
    query: Select[Any],
    table: Table,
    limit: int,
    cursor: str | None,
    build: Callable[[Any], T],
) -> Page[T]:
    """One page of `query`, latest created first; rows created meanwhile do not shift it."""
    place = tuple_(table.c.created_at, table.c.id)
    if cursor is not None:
        moment, last = decode("newest", cursor, str, str)
        query = query.where(place < tuple_(_moment(moment, cursor), last))
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(checked(limit) + 1)
    rows = s.execute(query).all()
    return cut(rows, limit, build, lambda row: encode("newest", row.created_at.isoformat(), row.id))


def cut(rows: Sequence[Any], limit: int, build: Callable[[Any], T], cursor_of: Callable[[Any], str]) -> Page[T]:
    """A page out of `limit` + 1 rows: the extra one only says that there are more."""
    shown = rows[:limit]
    following = cursor_of(shown[-1]) if len(rows) > limit else None
    return Page(tuple(build(row) for row in shown), following)


def checked(limit: int) -> int:
    """The limit, if it is one.

    Raises:
        InvalidInputError: below 1.
    """
    if limit < 1:
        raise InvalidInputError(f"a page holds at least 1 item, but got {limit!r}: ask for more", where="limit")
    return limit


def _moment(text: str, cursor: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise _foreign(cursor) from error


def _foreign(cursor: str) -> InvalidInputError:
    return InvalidInputError(
        f"a cursor is what the last page of the same list gave, but got {cursor[:80]!r}: start without one",
        where="cursor",
    )
