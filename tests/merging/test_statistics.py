from __future__ import annotations

import torch

from merging.statistics import PATIENCE, Statistics


def ask(statistics, key, made, size=40):
    def make():
        made.append(key)
        return (torch.zeros(size, dtype=torch.uint8),)

    return statistics.tensors(key, make)[0]


def test_numbers_are_made_once():
    statistics, made = Statistics(0), []
    for _ in range(3):
        assert statistics.number("norm", lambda: made.append(1) or 7.0) == 7.0
    assert made == [1]


def test_tensors_are_made_once_while_there_is_room():
    statistics, made = Statistics(100), []
    first = ask(statistics, "a", made)
    assert ask(statistics, "a", made) is first
    ask(statistics, "b", made)
    assert made == ["a", "b"]


def test_without_room_for_all_some_stay_and_the_others_are_made_anew():
    """To let the oldest go would be to keep nothing, where all are asked for in turn."""
    statistics, made = Statistics(100), []
    for _ in range(5):
        for key in ("a", "b", "c"):
            ask(statistics, key, made)
    assert [made.count(key) for key in ("a", "b", "c")] == [1, 1, 5]


def test_there_is_room_for_what_is_kept_already_and_for_what_fits():
    statistics = Statistics(100)
    ask(statistics, "a", [])
    assert statistics.has_room("a", 1000)
    assert statistics.has_room("b", 60)
    assert not statistics.has_room("b", 61)


def test_what_nobody_asks_for_any_more_makes_room_in_the_end():
    statistics, made = Statistics(100), []
    for key in ("old", "older"):
        ask(statistics, key, made)
    for _ in range(3 * PATIENCE):
        for key in ("c", "d"):
            ask(statistics, key, made)
    assert made.count("c") < 3 * PATIENCE
    assert not statistics.has_room("old", 40)
    before = len(made)
    for key in ("c", "d"):
        ask(statistics, key, made)
    assert len(made) == before


def test_asking_for_room_again_and_again_finds_it_in_the_end():
    statistics = Statistics(100)
    for key in ("old", "older"):
        ask(statistics, key, [])
    assert not statistics.has_room("new", 90)
    assert any(statistics.has_room("new", 90) for _ in range(3 * PATIENCE))


def test_nothing_is_kept_without_bytes_for_it():
    statistics, made = Statistics(0), []
    for _ in range(2):
        ask(statistics, "a", made)
    assert made == ["a", "a"]


def test_what_is_kept_can_be_asked_for_without_being_made():
    statistics = Statistics(100)
    assert statistics.kept("a") is None
    made = ask(statistics, "a", [])
    found = statistics.kept("a")
    assert found is not None
    assert found[0] is made


def row(statistics, source, made, *, name="x", size=1):
    """Ones (uint8) beside a source of float32, `size` of them for each."""

    def fill(planes):
        made.append(name)
        for plane in planes:
            plane.fill_(len(made))

    return statistics.rows((name, source.data_ptr()), (source,), source.shape, (torch.uint8,) * size, fill)


def test_rows_lie_to_one_another_as_what_they_belong_to():
    statistics, made = Statistics(10**6), []
    sources = torch.zeros(4, 2, 8).unbind()
    found = [row(statistics, source, made, size=2) for source in reversed(sources)]
    assert len(made) == 4
    for plane in range(2):
        low, *others = (planes[plane] for planes in reversed(found))
        assert low.shape == (2, 8)
        assert [other.data_ptr() - low.data_ptr() for other in others] == [16, 32, 48]
    assert all(
        row(statistics, source, made, size=2) is planes for source, planes in zip(sources, found[::-1], strict=True)
    )
    assert len(made) == 4


def test_what_is_no_row_is_kept_by_itself(monkeypatch):
    monkeypatch.setattr("merging.statistics.TOGETHER", 10)
    statistics, made = Statistics(10**6), []
    for source in (torch.zeros(8), torch.zeros(20)[4:12], torch.zeros(2, 8)[1], torch.zeros(())):
        (plane,) = row(statistics, source, made)
        assert plane.untyped_storage().nbytes() == source.numel()
        assert row(statistics, source, made)[0] is plane
    assert len(made) == 4


def test_rows_are_kept_together_up_to_some_bytes(monkeypatch):
    monkeypatch.setattr("merging.statistics.TOGETHER", 16)
    statistics, made = Statistics(10**6), []
    sizes = [row(statistics, each, made)[0].untyped_storage().nbytes() for each in torch.zeros(5, 8).unbind()]
    assert sizes == [16, 16, 16, 16, 8]


def test_memory_that_is_anothers_by_now_does_not_get_its_rows():
    statistics, made = Statistics(10**6), []
    first, second = torch.zeros(2, 8).unbind()
    (old,) = row(statistics, first, made, name="old")
    (new,) = row(statistics, first, made, name="new")
    (beside,) = row(statistics, second, made, name="new")
    assert [plane.tolist() for plane in (old, new, beside)] == [[1] * 8, [2] * 8, [3] * 8]
    assert old.data_ptr() + 8 == beside.data_ptr()


def test_rows_that_nobody_asks_for_any_more_make_room_together():
    statistics, made = Statistics(100), []
    old = torch.zeros(2, 40).unbind()
    for source in old:
        row(statistics, source, made)
    assert not statistics.has_room("new", 40)
    for _ in range(5 * PATIENCE):
        ask(statistics, "new", [], 40)
    assert statistics.has_room("another", 60)
    row(statistics, old[0], made)
    assert len(made) == 3


def test_rows_without_room_are_made_whenever_they_are_asked_for():
    statistics, made = Statistics(0), []
    source = torch.zeros(2, 8)[1]
    for _ in range(2):
        assert row(statistics, source, made)[0].tolist() == [len(made)] * 8
    assert len(made) == 2
