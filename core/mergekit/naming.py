"""Short names for the models of a configuration, which has paths only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from core.mergekit.inputs import Key
from core.mergekit.reference import Reference
from core.recipe.values import GROUPS

_LONGEST = 90


def source_names(keys: Iterable[Key]) -> dict[Key, str]:
    """A name for each: the last part of its path, told apart by numbers where that is not enough."""
    names: dict[Key, str] = {}
    for key in dict.fromkeys(keys):
        wanted = _short(key[0])
        names[key] = distinct(wanted, names.values())
    return names


def distinct(wanted: str, taken: Iterable[Any]) -> str:
    """The name, or the name with the first number that makes it new."""
    used, name, number = set(taken), wanted, 1
    while name in used:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _short(reference: Reference) -> str:
    parts = [path.path for path in (reference.model, reference.adapter) if path is not None]
    plain = "-".join(part.rstrip("/").rpartition("/")[2] for part in parts)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip("._-")[:_LONGEST]
    return name if name and name != GROUPS else f"model-{name}".rstrip("-")
