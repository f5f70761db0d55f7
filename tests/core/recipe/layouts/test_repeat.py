from __future__ import annotations

import pytest

from core.errors import LayoutError, RecipeError
from core.recipe.layouts import layout_indices


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"stop": 4, "count": 2}, (0, 1, 2, 3, 2, 3, 4, 5)),
        ({"stop": 4, "count": 2, "times": 3}, (0, 1, 2, 3, 2, 3, 2, 3, 4, 5)),
        ({"stop": 6, "count": 1}, (0, 1, 2, 3, 4, 5, 5)),
        ({"stop": 1, "count": 1}, (0, 0, 1, 2, 3, 4, 5)),
        ({"stop": 2, "count": 9}, (0, 1, 0, 1, 2, 3, 4, 5)),
        ({"stop": 6, "count": 6}, (0, 1, 2, 3, 4, 5) * 2),
    ],
)
def test_a_block_stands_there_several_times_in_a_row(params, expected):
    assert layout_indices("repeat", 6, params) == expected


def test_by_default_the_four_layers_below_the_ninth_stand_there_twice():
    assert layout_indices("repeat", 10, {}) == (*range(8), *range(4, 10))


def test_a_block_above_the_stack_is_refused():
    with pytest.raises(LayoutError, match="stop=7"):
        layout_indices("repeat", 6, {"stop": 7})


@pytest.mark.parametrize("params", [{"stop": 0}, {"count": 0}, {"times": 1}, {"times": 17}, {"m": 1}])
def test_parameters_out_of_bounds_or_unknown_are_refused(params):
    with pytest.raises(RecipeError):
        layout_indices("repeat", 8, params)


def test_an_absurd_count_costs_nothing():
    assert layout_indices("repeat", 3, {"stop": 3, "count": 10**15}) == (0, 1, 2) * 2
