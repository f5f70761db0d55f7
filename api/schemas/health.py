"""Health on the wire."""

from __future__ import annotations

from pydantic import BaseModel


class Health(BaseModel):
    """`ok`, and the same for every part that was looked at."""

    status: str
    checks: dict[str, str] = {}
