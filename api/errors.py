"""The only home of HTTP status codes: every failure as an RFC 9457 problem.

Clients tell failures apart by `code`, which is stable; `type` is a path at which the code is explained.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from api.schemas.failures import without_paths
from api.schemas.problem import FieldProblem, Problem
from api.templating import page
from core import errors as e
from core.jobs import KINDS

logger = logging.getLogger(__name__)

#: Status by error class; a class that is not listed takes its nearest listed ancestor's.
STATUS: dict[type[e.HuarizoError], int] = {
    e.HuarizoError: 500,
    e.InvalidInputError: 422,
    e.TooLargeError: 413,
    e.ParentsDoNotFitError: 422,
    e.CheckpointError: 422,
    e.GeneratorError: 422,
    e.TaskError: 422,
    e.TrialError: 500,
    e.OutcomeConflictError: 409,
    e.NotFoundError: 404,
    e.ConflictError: 409,
    e.DiskFullError: 507,
    e.LeaseLostError: 409,
    e.CancelledError: 409,
    e.EmbeddedServerError: 503,
    e.ServiceUnavailableError: 503,
}

#: Codes of failures that the protocol layer finds, with their status and meaning.
PROTOCOL: dict[str, tuple[int, str]] = {
    "malformed_json": (400, "The body is not JSON"),
    "bad_request": (400, "The request cannot be read"),
    "cross_origin": (403, "Another site's page may not change things here"),
    "host_not_allowed": (421, "This service does not answer under that name"),
    "not_found": (404, "No such row"),
    "method_not_allowed": (405, "The address does not take this method"),
    "too_large": (413, "A request over a documented limit"),
    "unsupported_media_type": (415, "The body must be application/json"),
    "internal": (500, "The service failed"),
}
_BY_STATUS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_FIELDS_LISTED = 50


class MediaTypeError(HTTPException):
    """A body whose content type is not JSON."""

    def __init__(self, content_type: str | None) -> None:
        detail = f"the body must be application/json, but its content type is {content_type!r}: set the header"
        super().__init__(PROTOCOL["unsupported_media_type"][0], detail)


def status_of(kind: type[e.HuarizoError]) -> int:
    """The status of an error class: its own, or its nearest listed ancestor's."""
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def title_of(kind: type[e.HuarizoError]) -> str:
    """What a class of failure is, in one line: its docstring's first."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].rstrip(".")


def error_classes(root: type[e.HuarizoError] = e.HuarizoError) -> Iterator[type[e.HuarizoError]]:
    """The whole tree, parents before children."""
    yield root
    for child in root.__subclasses__():
        yield from error_classes(child)


def problems() -> dict[str, tuple[int, str]]:
    """Every code with its status and meaning, sorted: what `GET /v1/problems` lists."""
    known = {kind.code: (status_of(kind), title_of(kind)) for kind in error_classes() if kind is not e.HuarizoError}
    return dict(sorted((PROTOCOL | known).items()))


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    title: str | None = None,
    where: str | None = None,
    fields: Sequence[FieldProblem] | None = None,
    request_id: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem response; status and title default to those of the code."""
    known_status, known_title = problems().get(code, (500, "The service failed"))
    body = Problem(
        type=f"/v1/problems/{code}",
        title=title or known_title,
        status=status or known_status,
        detail=detail,
        code=code,
        where=where,
        errors=tuple(fields) if fields else None,
        request_id=request_id,
    )
    content = body.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, body.status, headers=headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Have the application answer every failure with a problem."""
    app.add_exception_handler(e.HuarizoError, _named)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _protocol)


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def _wants_page(request: Request) -> bool:
    """Whether a person looks at this: a browser outside the API."""
    return not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", "")


async def _named(request: Request, error: Exception) -> Response:
    assert isinstance(error, e.HuarizoError)
    kind = type(error)
    status = status_of(kind)
    if _wants_page(request):
        return page("error.html", status=status, title=title_of(kind), detail=without_paths(error.message))
    if status >= 500:
        logger.error("%s: %s", kind.__name__, error, exc_info=error if status == 500 else None)
    headers = {"Retry-After": "5"} if status == 503 else None
    return problem(
        error.code,
        without_paths(error.message),
        status=status,
        title=title_of(kind),
        where=error.where,
        fields=_reasons(error),
        request_id=_request_id(request),
        headers=headers,
    )


def _reasons(error: e.HuarizoError) -> list[FieldProblem] | None:
    """Every reason, where there are several."""
    reasons = error.reasons if isinstance(error, e.MergekitError) else ()
    return [FieldProblem(where=error.where or "recipe", message=r) for r in reasons] if len(reasons) > 1 else None


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        reason = str(found[0].get("ctx", {}).get("error", "it cannot be parsed"))
        return problem("malformed_json", f"the body is not JSON: {reason}", request_id=_request_id(request))
    fields = [_field(item) for item in found[:_FIELDS_LISTED]]
    detail = "; ".join(f"{field.where}: {field.message}" for field in fields[:3])
    return problem(
        "invalid_input",
        detail,
        where=fields[0].where if fields else None,
        fields=fields,
        request_id=_request_id(request),
    )


def _field(item: Any) -> FieldProblem:
    """One of pydantic's findings, without the input it found (which may be large)."""
    place = [str(part) for part in item["loc"] if part != "body"]
    # A posted job is read by its kind, whose name is no field.
    if len(item["loc"]) > 1 and item["loc"][1] in KINDS:
        del place[0]
    return FieldProblem(where=".".join(place) or "body", message=str(item["msg"]).removeprefix("Value error, "))


async def _protocol(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "unsupported_media_type" if isinstance(error, MediaTypeError) else _BY_STATUS.get(error.status_code)
    if code == "not_found" and error.detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"nothing lives at {request.url.path!r}: see /openapi.json"
    elif code == "method_not_allowed":
        detail = f"{request.url.path!r} does not take {request.method}: see /openapi.json"
    else:
        detail = str(error.detail)
    headers = dict(error.headers) if error.headers else None
    if _wants_page(request):
        return page("error.html", status=error.status_code, title="Nothing here", detail=detail)
    return problem(
        code or "bad_request", detail, status=error.status_code, request_id=_request_id(request), headers=headers
    )
