"""Registered models on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.failures import FailureOut
from core.adapters import AdapterHeader
from core.model import Header
from core.recipe.short import Name
from core.records import ModelRecord


class ModelIn(BaseModel):
    """A model to register: a name of its own, and where its checkpoint lies."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "base", "ref": "local:nursery/base"}]},
    )

    name: Name
    ref: str = Field(
        min_length=1, max_length=500, description="`local:<path under a model root>` or `hub:<org>/<name>@<commit>`."
    )


class HeaderOut(BaseModel):
    """What a checkpoint says of itself."""

    model_type: str
    layers: int
    vocab_size: int
    parameters: int
    dtypes: tuple[str, ...]
    rope_theta: float | None
    tokenizer_digest: str | None

    @classmethod
    def of(cls, header: Header) -> Self:
        """The header in short."""
        return cls(
            model_type=header.model_type,
            layers=header.layers,
            vocab_size=header.vocab_size,
            parameters=header.parameters,
            dtypes=tuple(sorted({tensor.dtype for tensor in header.tensors})),
            rope_theta=header.rope_theta,
            tokenizer_digest=header.tokenizer_digest,
        )


class AdapterOut(BaseModel):
    """What a LoRA adapter says of itself."""

    parameters: int
    dtypes: tuple[str, ...]
    changes: int = Field(description="How many of its base's tensors it changes.")

    @classmethod
    def of(cls, header: AdapterHeader) -> Self:
        """The header in short."""
        return cls(
            parameters=header.parameters,
            dtypes=tuple(sorted({tensor.dtype for tensor in header.tensors})),
            changes=len({change.target for change in header.changes}),
        )


class ModelOut(BaseModel):
    """A registered model or adapter. `header` or `adapter`, and `weights_digest`, are null until it was inspected."""

    id: str
    name: str
    ref: str
    state: str = Field(description="`registered`, `ready` or `failed`.")
    weights_digest: str | None
    header: HeaderOut | None
    adapter: AdapterOut | None
    failure: FailureOut | None
    created_at: datetime

    @classmethod
    def of(cls, record: ModelRecord) -> Self:
        """The record on the wire."""
        return cls(
            id=record.id,
            name=record.name,
            ref=record.ref,
            state=record.state,
            weights_digest=record.weights_digest,
            header=HeaderOut.of(record.header) if isinstance(record.header, Header) else None,
            adapter=AdapterOut.of(record.header) if isinstance(record.header, AdapterHeader) else None,
            failure=FailureOut.of(record.failure),
            created_at=record.created_at,
        )
