"""`huarizo version`: what the numbers depend on, read from package metadata, nothing imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from huarizo.cli.console import print_json, say

PACKAGES = ("torch", "transformers", "lm-eval", "optuna", "safetensors", "tokenizers", "celery", "sqlalchemy")


def versions() -> dict[str, str | None]:
    """Versions by package; None for one that is not installed (Huarizo itself need not be)."""
    return {"huarizo": own_version(), "python": platform.python_version(), **{name: _of(name) for name in PACKAGES}}


def own_version() -> str | None:
    """The installed version; None when run from a checkout that is not installed."""
    return _of("huarizo")


def show(*, as_json: bool) -> None:
    """Print them."""
    found = versions()
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name:<14} {value or 'not installed'}")


def _of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
