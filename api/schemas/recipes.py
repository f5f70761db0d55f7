"""Recipes on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.params import Scalar
from core.recipe.resolved import Part, ResolvedRecipe
from core.recipe.short import Recipe

_RECIPE: dict[str, Any] = {
    "sources": [{"name": "base", "model": "base"}, {"name": "a", "model": "a"}, {"name": "b", "model": "b"}],
    "merge": {
        "method": "ties",
        "base": "base",
        "params": {
            "weight": {"a": 1.0, "b": [0.2, 0.8]},
            "density": [{"filter": "mlp", "value": 0.4}, {"value": 0.7}],
        },
    },
}
_NAMES = {"base": "nursery-base", "a": "nursery-a", "b": "nursery-b"}
_MERGEKIT: dict[str, Any] = {
    "models": [
        {"model": "org/base"},
        {"model": "org/maths", "parameters": {"weight": 1.0, "density": [1.0, 0.5]}},
        {"model": "org/code", "parameters": {"weight": [{"filter": "mlp", "value": 0.8}, {"value": 0.3}]}},
    ],
    "merge_method": "dare_ties",
    "base_model": "org/base",
    "dtype": "bfloat16",
}
EXAMPLES: list[Any] = [
    {"recipe": _RECIPE, "models": _NAMES},
    {"mergekit": _MERGEKIT, "models": {"org/base": "base", "org/maths": "maths", "org/code": "code"}},
]
Names = dict[str, str]


class ResolveIn(BaseModel):
    """What to resolve, a recipe or a mergekit configuration, and which registered model each of its names stands for
    (by default: its namesake).

    A configuration of several stages is {"merges": [...]}.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": EXAMPLES})

    recipe: Recipe | None = None
    mergekit: dict[str, Any] | None = Field(default=None, description="A parsed mergekit 0.1.x configuration.")
    models: Names = Field(default_factory=dict, max_length=64)

    @model_validator(mode="after")
    def _one_of(self) -> ResolveIn:
        if (self.recipe is None) == (self.mergekit is None):
            raise ValueError("there must be either `recipe` or `mergekit`: give one of them")
        return self


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
    part: Part | None = Field(default=None, description="A further factor on some rows or columns.")
    shift: float = Field(default=0.0, description="Added in the end, to norm weights that count from -1.")
    sources: tuple[SourceValue, ...]


class ResolveOut(BaseModel):
    """The complete form of a recipe, and the value each tensor gets."""

    digest: str
    layers: int
    layer_keys: tuple[str, ...]
    tensors: tuple[TensorValue, ...]
    resolved: ResolvedRecipe
    recipe: Recipe = Field(description="The short form; what a mergekit configuration means here.")
    notes: tuple[str, ...] = Field(description="Where mergekit's rules differ, and what had no effect there either.")


class MergekitIn(BaseModel):
    """A recipe to say in mergekit's words. Layouts and layer groups need the depth of registered models."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLES[0]]})

    recipe: Recipe
    models: Names = Field(default_factory=dict, max_length=64)


class MergekitOut(BaseModel):
    """A mergekit configuration, parsed and as text; several stages are {"merges": [...]} and several documents."""

    config: dict[str, Any]
    yaml: str
    notes: tuple[str, ...]
