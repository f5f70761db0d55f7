"""Recipes on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.params import Scalar
from core.recipe.resolved import ResolvedRecipe
from core.recipe.short import Recipe

EXAMPLE: dict[str, Any] = {
    "recipe": {
        "sources": [{"name": "a", "model": "a"}, {"name": "b", "model": "b"}],
        "merge": {"method": "slerp", "params": {"t": [0.0, 0.5, 1.0]}},
    },
    "models": {"a": "nursery-a", "b": "nursery-b"},
}


class ResolveIn(BaseModel):
    """A recipe to resolve, and which registered model each of its names stands for (by default: its namesake)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    recipe: Recipe
    models: dict[str, str] = Field(default_factory=dict, max_length=64)


class SourceValue(BaseModel):
    """What one source gives a tensor."""

    source: str
    layer: int | None = Field(description="Layer of the source; null in embedding and head.")
    base: bool
    params: dict[str, Scalar]


class TensorValue(BaseModel):
    """What one tensor of the candidate is made of."""

    tensor: str
    layer: int | None = Field(description="Layer of the candidate; null in embedding and head.")
    method: str
    params: dict[str, Scalar]
    scale: float
    sources: tuple[SourceValue, ...]


class ResolveOut(BaseModel):
    """The complete form of a recipe, and the value each tensor gets."""

    digest: str
    layers: int
    layer_keys: tuple[str, ...]
    tensors: tuple[TensorValue, ...]
    resolved: ResolvedRecipe
