from __future__ import annotations

import base64

import pytest
from sqlalchemy import text

from core.errors import InvalidInputError
from store import jobs
from store.page import checked, decode, encode
from tests.store.makers import new_job


def _base64(content: str) -> str:
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


@pytest.mark.parametrize("key", [("2026-01-02T03:04:05+00:00", "job_1"), (0.1 + 0.2, 7), (None, 0), ("ü>?", "")])
def test_a_cursor_comes_back_exactly(key):
    kinds = [type(part) for part in key]
    assert decode("order", encode("order", *key), *kinds) == list(key)


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "?", "AAAA", "é", _base64("{"), _base64("[]"), _base64("7"), _base64('"newest"')),
        *(encode("newest", "x"), encode("newest", 1, "job"), encode("newest", "no date", "job")),
        encode("other", "2026-01-02", "job"),
    ],
)
def test_what_is_no_cursor_of_the_list_is_refused(database, cursor):
    with database.reading() as s, pytest.raises(InvalidInputError, match="cursor"):
        jobs.page(s, 5, cursor)


def test_a_page_holds_at_least_one_item(database):
    assert checked(1) == 1
    with database.reading() as s, pytest.raises(InvalidInputError, match="at least 1"):
        jobs.page(s, 0)


def test_rows_of_one_moment_are_told_apart_by_their_id(database):
    with database.transaction() as s:
        ids = {new_job(s).id for _ in range(5)}
        s.execute(text("UPDATE jobs SET created_at = now()"))
    with database.reading() as s:
        cursor, seen = None, []
        while True:
            page = jobs.page(s, 2, cursor)
            seen += [job.id for job in page.items]
            if (cursor := page.next_cursor) is None:
                break
    assert seen == sorted(ids, reverse=True)
