"""The heartbeat: a thread that keeps a step's lease alive and learns of cancellation."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from core.records import StepRecord
from store import steps
from store.session import Database

log = logging.getLogger(__name__)


class Heart:
    """Beats every third of a lease while the context lasts.

    Attributes:
        cancelled: the step was cancelled, or belongs to another worker now: stop at the next chance.
    """

    def __init__(self, database: Database, step: StepRecord, lease_seconds: float) -> None:
        self._database = database
        self._step = step
        self._lease = lease_seconds
        self._done = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heart-{step.id}", daemon=True)

    @property
    def cancelled(self) -> bool:
        """Whether work on the step should stop."""
        return self._stopped.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        # A beat at most every 2 s, so that a cancelled step stops soon even under a long lease.
        while not self._done.wait(min(self._lease / 3, 2.0)):
            try:
                with self._database.transaction() as session:
                    answer = steps.heartbeat(session, self._step.id, self._step.fence, self._lease)
            except Exception:
                log.warning("heartbeat of step %s failed; trying again", self._step.id, exc_info=True)
                continue
            if answer != "held":
                self._stopped.set()
                return
