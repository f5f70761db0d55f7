"""Which benchmarks a job may name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from core.catalog import catalog
from store import tasks
from store.session import ReadSession

logger = logging.getLogger(__name__)


class _Tolerant(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain values and passes over tags such as `!function`, whose code is none of the API's business."""


def _ignore(_loader: yaml.SafeLoader, _suffix: str, _node: yaml.Node) -> None:
    return None


for _prefix in ("!", "tag:yaml.org,2002:python/"):
    _Tolerant.add_multi_constructor(_prefix, _ignore)


def known_tasks(s: ReadSession, folders: Sequence[Path]) -> frozenset[str]:
    """The harness's tasks, those inspected before, and those of the configured folders."""
    return frozenset(catalog().tasks) | frozenset(tasks.known(s)) | frozenset(folder_tasks(folders))


def folder_tasks(folders: Sequence[Path]) -> Iterator[str]:
    """Names of the tasks that YAML files under the folders define."""
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            name = _task_name(path, _changed(path))
            if name is not None:
                yield name


def _changed(path: Path) -> int:
    """When a file last changed; 0 where nobody can tell, such as a link that leads nowhere."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=20_000)
def _task_name(path: Path, _changed: int) -> str | None:
    """Parsed once per change: folders of thousands of tasks are common."""
    try:
        if not path.is_file() and path.exists():  # A folder, or a pipe, which would wait for whoever writes into it.
            return None
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Tolerant)
    except Exception as error:
        # Besides YAMLError the parser lets through whatever building a date or a number of a stranger's text raises.
        logger.warning("a task file cannot be read and is passed over: %s: %s", path.name, error)
        return None
    name = content.get("task") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None
