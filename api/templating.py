"""The dashboard's one set of templates. Everything put into them is escaped."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.answers import with_etag
from core.records import utc

_HERE = Path(__file__).parent


def share(value: float | None, decimals: int = 1) -> str:
    """0.7123 as `71.2 %`; a dash for nothing."""
    return "–" if value is None else f"{value * 100:.{decimals}f} %"


def points(value: float | None) -> str:
    """A difference of two shares (or percentage points times 0.01) with its sign: `+2.3`."""
    return "–" if value is None else f"{value * 100:+.1f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """`45 s`, `3 min 20 s`, `1 h 05 min`, `2 d 3 h`."""
    if seconds is None:
        return "–"
    whole = math.floor(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float) -> str:
    """Bytes with a binary unit: `4.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def whole(value: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def moment(value: datetime) -> str:
    """`20 Nov 2026, 12:20 UTC`."""
    return f"{value.day} {value:%b %Y, %H:%M} UTC"


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_HERE / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        share=share, points=points, duration=duration, size=size, whole=whole, moment=moment, utc=utc
    )
    environment.globals["asset"] = _asset
    return environment


@cache
def _asset(name: str) -> str:
    """The address of a static file, with a mark of its content so that a browser never keeps an old one."""
    digest = hashlib.sha256((_HERE / "static" / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?{digest}"


def render(template: str, **values: Any) -> str:
    """The text of a template."""
    return _environment().get_template(template).render(**values)


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """A whole page."""
    return HTMLResponse(render(template, **values), status)


def fragment(request: Request, template: str, *, state: str, **values: Any) -> Response:
    """The changing part of a page, or 304 where the browser shows it already.

    Args:
        request: may carry If-None-Match.
        template: its template.
        state: all it is made of but the time; while this stays the same, so does the ETag.
        values: what the template is given.
    """
    return with_etag(request, state, lambda: HTMLResponse(render(template, **values)))
