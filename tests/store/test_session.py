from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import store
from core.errors import InvalidInputError, ServiceUnavailableError
from store import jobs
from store.session import Database
from tests.store.makers import new_job, search

NOWHERE = "postgresql+psycopg://huarizo:x@127.0.0.1:1/huarizo"


class _Bell:
    def __init__(self, committed):
        self.rung, self.committed = [], committed

    def ring(self, queue, kind, id):
        self.rung.append((queue, kind, id, self.committed()))

    def close(self):
        pass


@pytest.fixture
def bell(database):
    """Notes each ring, and how many jobs others could see at that moment."""

    def visible() -> int:
        with database.reading() as s:
            return len(jobs.page(s, 9).items)

    database.bell.close()
    database.bell = _Bell(visible)
    return database.bell


def test_bells_ring_after_the_commit_each_once(database, bell):
    with database.transaction() as s:
        job, _ = jobs.create(s, search())
        s.ring("cpu", "run_trial", "x")
        s.ring("cpu", "run_trial", "x")
        assert bell.rung == []
    assert [(queue, kind, seen) for queue, kind, _, seen in bell.rung] == [
        ("control", "advance", 1),
        ("cpu", "run_trial", 1),
    ]
    assert bell.rung[0][2] != job.id


def test_a_rolled_back_transaction_writes_nothing_and_rings_no_bell(database, bell):
    def create_and_crash() -> None:
        with database.transaction() as s:
            jobs.create(s, search())
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        create_and_crash()
    assert bell.rung == []
    assert bell.committed() == 0


def test_a_commit_that_fails_rings_no_bell(database, bell):
    def commit_late_failure() -> None:
        with database.transaction() as s:
            jobs.create(s, search())
            s.execute(text("CREATE TABLE later (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
            s.execute(text("INSERT INTO later VALUES (1), (1)"))

    with pytest.raises(DBAPIError, match="later_id_key"):
        commit_late_failure()
    assert bell.rung == []
    assert bell.committed() == 0


def test_reading_cannot_write(database):
    with database.reading() as s, pytest.raises(DBAPIError, match="read-only"):
        jobs.create(s, search())
    with database.transaction() as s:  # and the pooled connection can write again afterwards
        new_job(s)


def test_times_are_in_utc_whatever_the_server_thinks(database):
    with database.transaction() as s:
        s.execute(text("ALTER ROLE CURRENT_USER SET timezone = 'Asia/Tokyo'"))
    try:
        database.dispose()
        with database.transaction() as s:
            assert new_job(s).created_at.utcoffset().total_seconds() == 0
    finally:
        with database.transaction() as s:
            s.execute(text("ALTER ROLE CURRENT_USER RESET timezone"))


def test_a_database_that_is_away_is_named_so(database):
    away = Database(NOWHERE)
    for act in (away.transaction, away.reading):
        with pytest.raises(ServiceUnavailableError, match="database must answer"), act():
            pass
    with pytest.raises(ServiceUnavailableError):
        away.ping()
    database.ping()


def test_a_connection_that_broke_between_transactions_is_replaced_unnoticed(database):
    with database.transaction() as s:
        pid = s.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other = Database(database.url)
    with other.transaction() as s:
        s.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    other.dispose()
    with database.transaction() as s:
        assert s.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


def test_a_connection_that_breaks_within_a_transaction_is_a_service_that_is_away(database):
    def die() -> None:
        with database.transaction() as s:
            new_job(s)
            s.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(ServiceUnavailableError):
        die()
    with database.reading() as s:
        assert jobs.page(s, 9).items == ()


def test_text_that_no_column_can_hold_is_the_callers_mistake(database):
    with database.transaction() as s, pytest.raises(DBAPIError):
        jobs.create(s, search(name="a\x00b"))

    def create() -> None:
        with database.transaction() as s:
            jobs.create(s, search(name="a\x00b"))

    with pytest.raises(InvalidInputError, match="NUL"):
        create()


def test_a_forked_child_opens_connections_of_its_own(database):
    with database.transaction() as s:
        parent = s.execute(text("SELECT pg_backend_pid()")).scalar_one()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with database.transaction() as s:
                os.write(writable, str(s.execute(text("SELECT pg_backend_pid()")).scalar_one()).encode())
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert int(os.read(readable, 20)) != parent
    os.close(readable), os.close(writable)
    with database.transaction() as s:
        assert s.execute(text("SELECT pg_backend_pid()")).scalar_one() == parent


def test_waiting_for_a_locked_row_ends_by_the_limit(database):
    with database.transaction() as s:
        job = new_job(s)
        limits = [s.execute(text(f"SHOW {name}")).scalar_one() for name in ("lock_timeout", "timezone")]
    assert limits == ["1min", "UTC"]

    def count() -> None:
        with database.transaction() as s:
            s.execute(text("SET LOCAL lock_timeout = '100ms'"))
            jobs.count(s, job.id, items=1)

    with database.transaction() as s:
        jobs.count(s, job.id, items=1)
        with pytest.raises(ServiceUnavailableError, match="lock timeout"):
            count()


def test_many_threads_share_the_pool(database):
    def count() -> None:
        for _ in range(5):
            with database.transaction() as s:
                jobs.count(s, job.id, items=1)

    with database.transaction() as s:
        job = new_job(s)
    threads = [threading.Thread(target=count) for _ in range(12)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 20
    with database.reading() as s:
        assert jobs.get(s, job.id).items_scored == 60


def test_nothing_but_the_session_module_commits():
    rooms = Path(store.__file__).parents[1]
    found = [
        str(path.relative_to(rooms))
        for room in ("store", "api", "workers", "search", "evaluation", "merging")
        for path in (rooms / room).rglob("*.py")
        if re.search(r"\.commit\(\)", path.read_text())
    ]
    assert found == ["store/session.py"]
