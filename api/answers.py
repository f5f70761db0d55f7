"""Parts of answers that several routes share: pages with links, weak ETags, documented problems."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.schemas.page import PageOut
from store.page import Page

R = TypeVar("R")
W = TypeVar("W")


def page_out(request: Request, response: Response, page: Page[R], build: Callable[[R], W]) -> PageOut[W]:
    """A page on the wire; the address of the next one also stands in the `Link` header (RFC 8288)."""
    if page.next_cursor is not None:
        address = request.url.include_query_params(cursor=page.next_cursor)
        response.headers["Link"] = f'<{address.path}?{address.query}>; rel="next"'
    return PageOut(items=tuple(build(item) for item in page.items), next_cursor=page.next_cursor)


def tagged(request: Request, body: BaseModel, *, clock: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """JSON with a weak ETag, or 304 where the client has it already.

    Args:
        request: may carry If-None-Match.
        body: the answer.
        clock: fields (in pydantic's `exclude` form) that change with time alone and do not count.
        headers: further headers.
    """
    return with_etag(
        request, body.model_dump_json(exclude=dict(clock)), lambda: JSONResponse(body.model_dump(mode="json")), headers
    )


def with_etag(
    request: Request, content: str, build: Callable[[], Response], headers: Mapping[str, str] | None = None
) -> Response:
    """The response that `build` gives under a weak ETag over `content`, or 304 where the client has it already."""
    etag = f'W/"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    response = Response(status_code=304) if etag in known else build()
    response.headers["ETag"] = etag
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's account of the problems a route may answer with."""
    said = {
        404: "No such thing.",
        409: "Not in this state.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        422: "The request breaks a rule.",
        503: "The database does not answer.",
    }
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": said[status], "content": content} for status in (*statuses, 503)}
