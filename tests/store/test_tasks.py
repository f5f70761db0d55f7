from __future__ import annotations

import pytest

from core.errors import NotFoundError
from core.tasks import TaskContent
from store import tasks
from tests.store.makers import at_once


def _content(digest="d1", name="arc", **changes):
    return TaskContent(
        **{
            "name": name,
            "version": "1.0",
            "content_digest": digest,
            "documents": 10,
            "search": "ff01",
            "metrics": ("acc", "acc_norm"),
            "has_fewshot": True,
            "mean_characters": 0.1 + 0.2,
            **changes,
        }
    )


def test_contents_are_kept_by_name_and_digest(database):
    with database.transaction() as s:
        tasks.put(s, _content())
        tasks.put(s, _content("d2"))
        tasks.put(s, _content("d3", name="hellaswag"))
        assert tasks.get(s, "arc", "d1") == _content()
        assert tasks.get(s, "arc", "d2") == _content("d2")
        assert tasks.known(s) == {"arc", "hellaswag"}


def test_the_latest_content_is_the_one_seen_last(database):
    with database.transaction() as s:
        assert tasks.latest(s, "arc") is None
        tasks.put(s, _content("d1"))
        tasks.put(s, _content("d2"))
        assert tasks.latest(s, "arc").content_digest == "d2"
        tasks.put(s, _content("d1"))
        assert tasks.latest(s, "arc").content_digest == "d1"


def test_an_unknown_content_is_not_found(database):
    with database.transaction() as s:
        tasks.put(s, _content())
        with pytest.raises(NotFoundError, match="'d9'"):
            tasks.get(s, "arc", "d9")
        with pytest.raises(NotFoundError, match="'d9'"):
            tasks.count_heldout_read(s, "d9")
        assert tasks.heldout_reads(s, "d9") == 0


def test_every_read_of_held_out_items_is_counted(database):
    with database.transaction() as s:
        tasks.put(s, _content())

    def read(_: int) -> int:
        with database.transaction() as s:
            return tasks.count_heldout_read(s, "d1")

    assert sorted(at_once(read, 6)) == [1, 2, 3, 4, 5, 6]
    with database.transaction() as s:
        tasks.put(s, _content())  # inspecting again forgets no read
        assert tasks.heldout_reads(s, "d1") == 6
