"""What one Celery child process keeps: settings, database, and what its queue needs warm."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import ClassVar

from core.errors import LeaseLostError
from core.records import Device, StepKind, StepRecord
from core.settings import Settings
from store import steps
from store.session import Database
from workers.failures import settle
from workers.heart import Heart
from workers.lifetime import process_owner
from workers.stopping import stretch

log = logging.getLogger(__name__)

CONTROL_KINDS = (StepKind.ADVANCE,)
INSPECT_KINDS = (StepKind.INSPECT_MODEL, StepKind.EXPLAIN)
#: What the linear algebra under NumPy reads once, as it is loaded.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Process:
    """The state of one worker child."""

    _current: ClassVar[Process | None] = None

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise RuntimeError("a worker needs HUARIZO_DATABASE_URL: start it with `huarizo worker` or `huarizo up`")
        self.settings = settings
        self.database = Database(settings.database_url, settings.broker_url)
        self.owner = process_owner()

    @classmethod
    def begin(cls, settings: Settings) -> Process:
        """Start this child's state."""
        cls._current = cls(settings)
        return cls._current

    @classmethod
    def current(cls) -> Process:
        """This child's state, made on first use (pools without child processes have no start hook)."""
        return cls._current or cls.begin(Settings())

    def answer(self, queue: str) -> None:
        """Run the best steps of a queue for a stretch."""
        if queue in ("cpu", "cuda"):
            from workers.device import drive

            drive(self, queue)
            return
        self._work_off(INSPECT_KINDS if queue == "inspect" else CONTROL_KINDS)

    def _work_off(self, kinds: tuple[StepKind, ...]) -> None:
        for name in _THREADS:
            # A surrogate's matrices are small: more threads would only spin on the cores of whoever scores.
            os.environ.setdefault(name, "1")
        for _ in stretch():
            with self.database.transaction() as session:
                step = steps.claim(
                    session,
                    owner=self.owner,
                    devices=(Device.NONE,),
                    kinds=kinds,
                    lease_seconds=self.settings.lease_seconds,
                )
            if step is None:
                return
            with Heart(self.database, step, self.settings.lease_seconds):
                self._run(step)

    def _run(self, step: StepRecord) -> None:
        """Run one control or inspect step; a failure is recorded, never raised into Celery."""
        try:
            _verb(step.kind)(self.database, self.settings, step)
        except LeaseLostError:
            log.warning("step %s (%s) is held by another worker now", step.id, step.kind)
        except Exception as error:
            settle(self.database, self.settings, step, error)


def _verb(kind: StepKind) -> Callable[[Database, Settings, StepRecord], None]:
    """What runs a kind of step, imported when it is needed: whoever reads checkpoints needs nothing of the search."""
    if kind is StepKind.INSPECT_MODEL:
        from workers.steps import inspect_model

        return inspect_model.run
    if kind is StepKind.EXPLAIN:
        from workers.steps import explain

        return explain.run
    from workers.steps import advance

    return advance.run
