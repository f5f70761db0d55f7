"""How mergekit names a model: `path`, `path@revision`, either with `+adapter` behind it, or the same as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.jobs import HUB_REF, LOCAL_REF


@dataclass(frozen=True, slots=True)
class ModelPath:
    """A folder or a hub id, and the revision of the latter."""

    path: str
    revision: str | None = None

    @property
    def text(self) -> str:
        """`path` or `path@revision`."""
        return self.path if self.revision is None else f"{self.path}@{self.revision}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A model, or a LoRA adapter on one."""

    model: ModelPath
    adapter: ModelPath | None = None

    @property
    def text(self) -> str:
        """As people write it."""
        return self.model.text if self.adapter is None else f"{self.model.text}+{self.adapter.text}"


def parse_reference(value: Any) -> Reference:
    """Read a reference in either of mergekit's forms.

    Raises:
        ValueError: it is in neither; says why.
    """
    if isinstance(value, Reference):
        return value
    if isinstance(value, str):
        model, *adapters = value.split("+")
        if len(adapters) > 1:
            raise ValueError(f"a model takes one adapter, <model>+<adapter>, but got {value!r}: merge them one by one")
        return Reference(_path(model), _path(adapters[0]) if adapters else None)
    if isinstance(value, Mapping) and "model" in value and set(value) <= {"model", "lora", "override_architecture"}:
        if value.get("override_architecture") is not None:
            raise ValueError(
                f"override_architecture is not supported, but got {value['override_architecture']!r}: "
                "write the architecture into the model's config.json"
            )
        adapter = value.get("lora")
        return Reference(_path(value["model"]), None if adapter is None else _path(adapter))
    raise ValueError(f"a model is <path or hub id>[@revision][+adapter], but got {value!r}")


def _path(value: Any) -> ModelPath:
    if isinstance(value, str) and value.count("@") < 2:
        path, at, revision = value.partition("@")
        if path and (revision or not at):
            return ModelPath(path, revision or None)
    if isinstance(value, Mapping) and set(value) <= {"path", "revision"}:
        place, commit = value.get("path"), value.get("revision")
        if isinstance(place, str) and place and (commit is None or isinstance(commit, str)):
            return ModelPath(place, commit)
    raise ValueError(f"a model is <path or hub id>[@revision], but got {value!r}")


def write_reference(reference: Reference) -> Any:
    """The reference as text where mergekit reads the same out of it, else as a mapping."""
    try:
        if parse_reference(reference.text) == reference:
            return reference.text
    except ValueError:
        pass
    adapter = reference.adapter
    return {"model": _mapping(reference.model), "lora": None if adapter is None else _mapping(adapter)}


def _mapping(path: ModelPath) -> dict[str, str | None]:
    return {"path": path.path, "revision": path.revision}


def path_of(model: str) -> ModelPath:
    """What mergekit calls a model that is `local:<path>`, `hub:<org>/<name>@<commit>` or a registered name here."""
    local, hub = LOCAL_REF.match(model), HUB_REF.match(model)
    if local is not None:
        return ModelPath(local["path"])
    return ModelPath(hub["repo"], hub["revision"]) if hub is not None else ModelPath(model)
