"""The base of every noun: frozen, closed, finite, with one canonical JSON form and a digest over it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Noun(BaseModel):
    """An immutable value. Collections are tuples, floats are finite, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")

    def evolve(self, **changes: Any) -> Self:
        """A validated copy with some fields changed.

        Raises:
            pydantic.ValidationError: a change breaks a rule of the noun.
        """
        # Field by field: what a noun has worked out of itself once stands beside its fields.
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**fields, **changes})

    def digest(self) -> str:
        """The sha256 hex digest of the canonical JSON form."""
        return digest_of(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no blanks and no NaN: equal values give equal text in every process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """The sha256 hex digest of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
