"""Request bodies: JSON as the standard has it, said to be JSON, and storable."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.errors import MediaTypeError


class StrictRequest(Request):
    """A request whose body is refused where Python's parser is laxer than JSON."""

    async def json(self) -> Any:
        """The parsed body.

        Raises:
            json.JSONDecodeError: malformed, NaN or infinite, nested too deeply, or with text no database can hold.
        """
        return parse(await self.body())


class StrictRoute(APIRoute):
    """A route whose body must be declared as JSON and parse as such."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler over a strict request."""
        handle = super().get_route_handler()
        required = self.body_field is not None and self.body_field.field_info.is_required()

        async def strict(request: Request) -> Response:
            content_type = request.headers.get("content-type")
            if self.body_field is not None and (required or content_type) and not _is_json(content_type):
                raise MediaTypeError(content_type)
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def parse(body: bytes) -> Any:
    """Parse strict JSON.

    Raises:
        json.JSONDecodeError: see StrictRequest.json.
    """
    try:
        value = json.loads(body, parse_constant=_constant, parse_float=_finite)
        _check_text(value)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except (UnicodeError, ValueError) as error:
        raise _malformed(str(error).partition(";")[0]) from None
    return value


def _malformed(reason: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(reason, "", 0)


def _constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _malformed(f"{text[:40]} is too large for a number")
    return value


def _check_text(value: Any) -> None:
    """Refuse zero characters and halves of surrogate pairs, which a database cannot hold."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise ValueError("text may not hold a zero character")
            item.encode()
        elif isinstance(item, dict):
            left.extend(item)
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)


def _is_json(content_type: str | None) -> bool:
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
