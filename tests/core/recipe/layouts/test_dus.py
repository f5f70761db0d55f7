from __future__ import annotations

import pytest

from core.errors import LayoutError, RecipeError
from core.recipe.layouts import layout_indices


def test_solar_stacks_0_to_23_and_8_to_31():
    assert layout_indices("dus", 32, {"m": 8}) == (*range(24), *range(8, 32))
    assert layout_indices("dus", 32, {}) == layout_indices("dus", 32, {"m": 8})


def test_a_small_stack_worked_by_hand():
    assert layout_indices("dus", 4, {"m": 1}) == (0, 1, 2, 1, 2, 3)
    assert layout_indices("dus", 4, {"m": 3}) == (0, 3)


@pytest.mark.parametrize("m", range(1, 12))
def test_the_depth_is_twice_what_is_left_of_a_copy(m):
    indices = layout_indices("dus", 12, {"m": m})
    assert len(indices) == 2 * (12 - m)
    assert (indices[0], indices[-1]) == (0, 11)


@pytest.mark.parametrize("m", [4, 5, 100])
def test_a_copy_of_which_nothing_is_left_is_refused(m):
    with pytest.raises(LayoutError, match=f"m={m}"):
        layout_indices("dus", 4, {"m": m})


@pytest.mark.parametrize("params", [{"m": 0}, {"m": -1}, {"m": 1.5}, {"n": 3}])
def test_parameters_out_of_bounds_or_unknown_are_refused(params):
    with pytest.raises(RecipeError):
        layout_indices("dus", 4, params)
