import pytest
from pydantic import ValidationError

from core.errors import LayoutError
from core.recipe.path import Path

DEPTHS = {"a": 2, "b": 3}


def path(**fields):
    return Path.model_validate({"sources": ["a", "b"], "include": [True] * 5, **fields})


def test_the_slots_are_all_layers_of_all_sources_in_order_and_again():
    once = (("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2))
    assert path().slots(DEPTHS) == once
    assert path(repeats=3, include=[True] * 15).slots(DEPTHS) == once * 3


def test_the_steps_are_the_included_slots_with_their_scales():
    found = path(
        repeats=2,
        include=[1, 0, 0, 1, 0, 0, 1, 0, 0, 1],
        scales=[0.5, None, None, None, None, None, 2, None, None, 1.5],
    ).steps(DEPTHS)
    assert found == (("a", 0, 0.5), ("b", 1, 1.0), ("a", 1, 2.0), ("b", 2, 1.5))


def test_without_scales_the_stream_keeps_its_size():
    assert [scale for *_, scale in path().steps(DEPTHS)] == [1.0] * 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"include": [False] * 5}, "include a slot"),
        ({"include": []}, "at least 1 item"),
        ({"scales": [1.0]}, "1 for 5"),
        ({"include": [True] * 4 + [False], "scales": [1.0] * 5}, "slot 4 is not included"),
        ({"scales": [0.0, 1, 1, 1, 1]}, "greater than or equal to 0.001"),
        ({"scales": [-1.0, 1, 1, 1, 1]}, "greater than or equal to 0.001"),
        ({"scales": [0.0009, 1, 1, 1, 1]}, "greater than or equal to 0.001"),
        ({"scales": [16.1, 1, 1, 1, 1]}, "less than or equal to 16"),
        ({"scales": [float("inf"), 1, 1, 1, 1]}, "finite"),
        ({"sources": ["a", "a"]}, "names each source once"),
        ({"sources": []}, "at least 1 item"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"repeats": 65}, "less than or equal to 64"),
        ({"include": [True] * 4097}, "at most 4096"),
    ],
)
def test_a_path_that_cannot_be_walked_is_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        path(**fields)


@pytest.mark.parametrize("count", [4, 6, 10])
def test_a_path_has_one_entry_per_slot(count):
    with pytest.raises(LayoutError, match=f"has 5 slots, but `include` has {count}"):
        path(include=[True] * count).slots(DEPTHS)
