"""Where a service keeps its things, and the environment that tells its processes so.

<data home>/            see `huarizo.embedded.places`
    models/             the first model root; `huarizo nursery` grows into models/nursery
    artifacts/          exported checkpoints
    logs/               one file per process, the three before it kept beside it
    up.json, up.lock    who runs here, see `address`
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.settings import Settings
from huarizo.embedded.places import data_home

#: The folder that holds the packages: processes start here, so that no folder of the caller's can shadow one of them.
CODE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Places:
    """Absolute folders of one service; nothing is created by asking."""

    home: Path
    model_roots: tuple[Path, ...]
    task_folders: tuple[Path, ...]
    artifacts: Path
    datasets: Path | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The folders in force: the user's where given, else under the data home."""
        home = data_home()
        roots = (home / "models", *(_absolute(root) for root in settings.model_roots))
        roots = tuple(dict.fromkeys(roots))
        return cls(
            home=home,
            model_roots=roots,
            task_folders=tuple(_absolute(folder) for folder in settings.task_folders) or _nursery_tasks(roots),
            artifacts=_absolute(settings.artifacts) if settings.artifacts else home / "artifacts",
            datasets=_absolute(settings.datasets) if settings.datasets else None,
        )

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.home / "logs"

    @property
    def nursery(self) -> Path:
        """Where `huarizo nursery` grows by default."""
        return self.model_roots[0] / "nursery"

    def make(self) -> None:
        """Create the folders that are Huarizo's own."""
        for folder in (self.model_roots[0], self.artifacts, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        if self.nursery / "tasks" in self.task_folders:
            # Named before it is grown, so that a nursery grown under a running service is found.
            (self.nursery / "tasks").mkdir(parents=True, exist_ok=True)

    def environment(self) -> dict[str, str]:
        """Settings that carry these folders to another process, whatever its working directory."""
        variables = {
            "HUARIZO_HOME": str(self.home),
            "HUARIZO_MODEL_ROOTS": _joined(self.model_roots),
            "HUARIZO_TASK_FOLDERS": _joined(self.task_folders),
            "HUARIZO_ARTIFACTS": str(self.artifacts),
        }
        if self.datasets is not None:
            variables["HUARIZO_DATASETS"] = str(self.datasets)
        return variables


def code_environment() -> dict[str, str]:
    """The search path that lets a process import this code from any folder."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(CODE), *([before] if before else [])])}


def _nursery_tasks(roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """The nursery's benchmarks under every root that has them, and under the first one, which may get them."""
    return tuple(root / "nursery" / "tasks" for root in roots if root == roots[0] or (root / "nursery/tasks").is_dir())


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _joined(paths: tuple[Path, ...]) -> str:
    return os.pathsep.join(map(str, paths))
