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
