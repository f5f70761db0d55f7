"""How much of a request body is read: all of it up to a limit, before any route sees the request."""

from __future__ import annotations

from starlette.types import Message, Receive

from core.errors import TooLargeError


async def bounded(receive: Receive, length: str | None, limit: int) -> Receive:
    """A `receive` that replays the body, once it is known to be within the limit.

    Args:
        receive: the server's.
        length: the Content-Length header; a body may also come without one, in pieces.
        limit: bytes.

    Raises:
        TooLargeError: the body is larger, or says that it is.
    """
    if length is not None and length.isdigit() and int(length) > limit:
        raise _too_large(length, limit)
    pieces, size, last = [], 0, await receive()
    while last["type"] == "http.request":
        pieces.append(last.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large("more", limit)
        if not last.get("more_body", False):
            break
        last = await receive()
    return _Replay(b"".join(pieces), last, receive)


class _Replay:
    """The body as one message, then whatever the server has to say."""

    def __init__(self, body: bytes, last: Message, receive: Receive) -> None:
        self.receive = receive
        whole = {"type": "http.request", "body": body, "more_body": False}
        self.first: Message | None = whole if last["type"] == "http.request" else last

    async def __call__(self) -> Message:
        first, self.first = self.first, None
        return first if first is not None else await self.receive()


def _too_large(length: str, limit: int) -> TooLargeError:
    return TooLargeError(f"a body may have {limit} bytes (HUARIZO_MAX_BODY_BYTES), but has {length}: send less")
