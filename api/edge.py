"""What every request passes: an id, a look at where it comes from, headers on the way out, one line in the log."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from contextvars import ContextVar
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import bounded
from api.errors import problem
from core.errors import TooLargeError
from core.records import new_id
from core.settings import Settings

logger = logging.getLogger("api.access")

#: The id of the request that is being served, for every log line.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

#: Nothing from elsewhere, nothing inline: text that people type can never become a script or a style.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_QUIET = frozenset({"/healthz", "/readyz"})


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.limit = settings.max_body_bytes
        self.local = _is_loopback(settings.host)
        self.own_host = (urlsplit(settings.api_url).hostname or "").lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        identity = given if _GIVEN_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = identity
        token = request_id.set(identity)
        try:
            await self._serve(scope, receive, _Outgoing(scope, send, identity), headers)
        finally:
            request_id.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: _Outgoing, headers: Headers) -> None:
        started = time.monotonic()
        try:
            refusal = self._refuse(scope, headers)
            if refusal is None and scope["method"] not in _SAFE:
                receive = await bounded(receive, headers.get("content-length"), self.limit)
            await (refusal or self.app)(scope, receive, send)
        except TooLargeError as error:
            await problem(error.code, error.message, request_id=send.identity)(scope, receive, send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if send.status:  # Headers are out: all that is left is to break the connection off.
                raise
            detail = "the service failed and has logged why under the request id: report it, then try again"
            await problem("internal", detail, request_id=send.identity)(scope, receive, send)
        finally:
            milliseconds = round((time.monotonic() - started) * 1000, 1)
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            fields = {"method": scope["method"], "path": scope["path"], "status": send.status, "ms": milliseconds}
            logger.log(level, "%(method)s %(path)s %(status)s", fields, extra={"fields": fields})

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """A problem for a request that must not reach a route."""
        identity = scope["state"]["request_id"]
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            return problem("bad_request", "an address may not hold a zero byte: leave it out", request_id=identity)
        host = (_hostname(headers.get("host", "")) or "").lower()
        # A page elsewhere can point its own name at this machine; only its Host header gives it away.
        if self.local and host and not _is_loopback(host) and host != self.own_host:
            detail = f"a local service answers to localhost only, but was called {host!r}: set HUARIZO_API_URL to that"
            return problem("host_not_allowed", detail, request_id=identity)
        if scope["method"] not in _SAFE and not _same_origin(headers):
            detail = "changes are taken from this service's own pages and from programs: drop the Origin header"
            return problem("cross_origin", detail, request_id=identity)
        return None


class _Outgoing:
    """The way back: adds the headers every response has and remembers the status."""

    def __init__(self, scope: Scope, send: Send, identity: str) -> None:
        self.scope, self.send, self.identity, self.status = scope, send, identity, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.identity
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self.send(message)


def _same_origin(headers: Headers) -> bool:
    """Whether a change is asked for by a program or by our own page."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return "?"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
