"""Where a training stands: told to whoever watches, and put down on disk so that it can go on."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import TrainingDivergedError

#: Called with steps done, steps in all, the last loss and the seconds since this process began; may raise to stop.
Progress = Callable[[int, int, float, float], None]


@dataclass(frozen=True, slots=True)
class Saved:
    """A state on disk.

    Attributes:
        stage: of the training.
        done: its steps in that stage.
        tensors: all that the next step depends on.
    """

    stage: str
    done: int
    tensors: dict[str, Tensor]


class Checkpoint:
    """A file that holds the latest state of one training.

    Args:
        path: where; None keeps nothing.
        fingerprint: names the training. A state of another one counts as none.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint

    def save(self, stage: str, done: int, tensors: dict[str, Tensor]) -> None:
        """Replace the state, whole or not at all."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        told = {"fingerprint": self._fingerprint, "stage": stage, "done": str(done)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata=told)
        os.replace(partial, self._path)

    def load(self) -> Saved | None:
        """The latest state; None where there is none of this training that can be read."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                told = file.metadata() or {}
                if told.get("fingerprint") != self._fingerprint:
                    return None
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
                return Saved(told["stage"], int(told["done"]), tensors)
        except (SafetensorError, KeyError, ValueError):
            return None


class Watch:
    """Tells a `Progress` now and then.

    Args:
        progress: told; None tells nobody.
        total: steps in all.
        every: steps between two calls.
    """

    def __init__(self, progress: Progress | None, total: int, every: int) -> None:
        self._progress, self._total, self._every = progress, total, every
        self._began = time.monotonic()

    def tell(self, done: int, loss: Tensor) -> None:
        """After a step; the loss is waited for, and looked at, only now and then.

        Raises:
            TrainingDivergedError: it is no finite number.
        """
        if done % self._every and done != self._total:
            return
        found = float(loss)
        if not math.isfinite(found):
            raise TrainingDivergedError(
                f"a training goes on while its loss is finite, but after {done!r} of {self._total!r} steps it is "
                f"{found!r}: lower `rate`, or raise `posterior_std`",
                where="training.rate",
            )
        if self._progress is not None:
            self._progress(done, self._total, found, time.monotonic() - self._began)
