from __future__ import annotations

import itertools
import threading

import pytest

from core.errors import NotFoundError
from store import events
from tests.store.makers import at_once, new_job


@pytest.fixture
def job(database):
    with database.transaction() as s:
        return new_job(s)


def test_events_are_read_on_from_an_id_in_parts(database, job):
    with database.transaction() as s:
        other = new_job(s)
        start = events.after(s, job.id, 0, 99)[-1].id
        for number in range(5):
            events.append(s, job.id, "note", {"number": number})
            events.append(s, other.id, "note", {"number": -1})
        first = events.after(s, job.id, start, 3)
        rest = events.after(s, job.id, first[-1].id, 3)
    assert [e.payload["number"] for e in (*first, *rest)] == [0, 1, 2, 3, 4]
    assert all(a.id < b.id for a, b in itertools.pairwise(first))


def test_events_of_one_kind_are_listed(database, job):
    with database.transaction() as s:
        events.append(s, job.id, "note", {"a": 1})
        assert [e.payload for e in events.of_kind(s, job.id, "note")] == [{"a": 1}]
        assert events.of_kind(s, job.id, "other") == []


def test_an_unknown_job_has_no_events(database):
    with database.transaction() as s:
        assert events.after(s, "job_0", 0, 9) == []
        with pytest.raises(NotFoundError):
            events.append(s, "job_0", "note", {})


def test_a_reader_who_follows_while_many_write_misses_nothing(database, job):
    """Ids are drawn before a commit; without the lock a reader could pass one that is not visible yet."""
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        last = 0
        while True:
            finished = done.is_set()
            with database.reading() as s:
                found = events.after(s, job.id, last, 1000)
            seen.extend(e.payload["number"] for e in found if e.kind == "note")
            last = found[-1].id if found else last
            if finished:
                return

    def write(worker: int) -> None:
        for number in range(15):
            with database.transaction() as s:
                events.append(s, job.id, "note", {"number": 100 * worker + number})

    reader = threading.Thread(target=follow)
    reader.start()
    at_once(write, 6)
    done.set()
    reader.join()
    assert sorted(seen) == [100 * worker + number for worker in range(6) for number in range(15)]
