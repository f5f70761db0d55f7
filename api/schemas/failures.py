"""Recorded failures as clients see them."""

from __future__ import annotations

import re
from typing import Self

from pydantic import BaseModel

from core.records import Failure

#: An absolute path of two or more parts that is not part of a reference (`local:/...`) or an address (`http://...`).
_PATH = re.compile(r"(?<![\w.:/-])/(?:[\w.@+~ -]*[\w.@+~-]/)+([\w.@+~-]*)")


class FailureOut(BaseModel):
    """Why something failed: a stable code, a message, and the field, file or tensor it names."""

    code: str
    message: str
    where: str | None = None

    @classmethod
    def of(cls, failure: Failure | None) -> Self | None:
        """The failure without the service's own paths."""
        if failure is None:
            return None
        return cls(code=failure.code, message=without_paths(failure.message), where=failure.where)


def without_paths(text: str) -> str:
    """The text with absolute paths cut down to their last part: where the service keeps things is nobody's business."""
    return _PATH.sub(lambda found: f"…/{found[1]}" if found[1] else "…", text)
