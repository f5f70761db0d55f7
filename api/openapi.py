"""The OpenAPI document: as FastAPI derives it, but with failures as the problems they are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.schemas.problem import Problem

_STOCK = "HTTPValidationError"


def install(app: FastAPI) -> None:
    """Have the application serve this document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = with_problems(made)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the problem schema, and without the validation answer that FastAPI would give by itself."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, problem = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    for name in (_STOCK, "ValidationError"):
        schemas.pop(name, None)
    schemas.update(problem["$defs"])
    for path in document["paths"].values():
        for operation in path.values():
            if _STOCK in str(operation["responses"].get("422", "")):
                del operation["responses"]["422"]
    return document
