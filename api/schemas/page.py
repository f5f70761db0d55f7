"""One page of a list."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, Field

T = TypeVar("T")


class PageOut(BaseModel, Generic[T]):
    """Items, and the opaque cursor of the next page (also in the `Link` header); null on the last page."""

    items: tuple[T, ...]
    next_cursor: str | None = Field(None, description="Pass it as `cursor` to get the next page.")
