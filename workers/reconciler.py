"""The reconciler: one leader that owns time.

It puts steps whose lease ran out back on the queue, rings again for what waits too long, and wakes jobs that nothing
would wake. Every pass is idempotent, so losing one costs nothing.
"""

from __future__ import annotations

import logging
import threading

from core.settings import Settings
from store import steps
from store.leader import leader
from store.session import Database
from workers.failures import bear
from workers.lifetime import owner_is_dead

log = logging.getLogger(__name__)

LEADER_KEY = "reconciler"


def reconcile(database: Database, settings: Settings) -> None:
    """One pass."""
    released = _release_the_dead(database)
    with database.transaction() as session:
        failed = steps.expire(session, max_infra_restarts=settings.max_infra_restarts)
        for step in failed:
            bear(session, step)
    with database.transaction() as session:
        steps.overdue(session, settings.ring_seconds)
    with database.transaction() as session:
        for job_id in steps.idle_jobs(session):
            steps.ensure_advance(session, job_id)
    if released or failed:
        log.warning("%d steps of dead workers are queued again, %d failed: died too often", released, len(failed))


def _release_the_dead(database: Database) -> int:
    """Steps held by processes of this host that no longer run need not wait for their lease."""
    with database.reading() as session:
        owners = steps.owners(session)
    dead = [owner for owner in owners if owner_is_dead(owner)]
    if not dead:
        return 0
    with database.transaction() as session:
        return sum(steps.release(session, owner) for owner in dead)


class Reconciler:
    """Runs passes on a thread while it is the leader; a standby waits for the lock."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current pass."""
        self._stop.set()

    def _live(self) -> None:
        settings = self._settings
        assert settings.database_url is not None
        database = Database(settings.database_url, settings.broker_url)
        while not self._stop.is_set():
            try:
                self._lead(database)
            except Exception:
                log.warning("a reconciler pass failed; trying again", exc_info=True)
            self._stop.wait(settings.reconcile_seconds)
        database.dispose()

    def _lead(self, database: Database) -> None:
        with leader(database, LEADER_KEY) as lock:
            while lock.held() and not self._stop.is_set():
                reconcile(database, self._settings)
                self._stop.wait(self._settings.reconcile_seconds)


_running: list[Reconciler] = []


def start_reconciler(settings: Settings) -> None:
    """Start this process's reconciler."""
    reconciler = Reconciler(settings)
    _running.append(reconciler)
    reconciler.start()


def stop_reconciler() -> None:
    """Stop it, if it runs."""
    for reconciler in _running:
        reconciler.stop()
