from __future__ import annotations

import pytest

from core.errors import LayoutError
from core.recipe.layouts import layout_indices


def test_single_layers_of_both_copies_alternate():
    expected = tuple(i for pair in zip(range(24), range(8, 32), strict=True) for i in pair)
    assert layout_indices("idus", 32, {"m": 8, "block": 1}) == expected
    assert expected[:6] == (0, 8, 1, 9, 2, 10)
    assert expected[-2:] == (23, 31)


def test_blocks_of_eight_repeat_the_middle_blocks_in_a_row():
    expected = (*range(8), *range(8, 16), *range(8, 16), *range(16, 24), *range(16, 24), *range(24, 32))
    assert layout_indices("idus", 32, {"m": 8, "block": 8}) == expected
    assert layout_indices("idus", 32, {}) == expected


def test_the_last_block_may_be_shorter():
    assert layout_indices("idus", 6, {"m": 1, "block": 2}) == (0, 1, 1, 2, 2, 3, 3, 4, 4, 5)
    assert layout_indices("idus", 6, {"m": 1, "block": 3}) == (0, 1, 2, 1, 2, 3, 3, 4, 4, 5)


@pytest.mark.parametrize("m", range(1, 9))
@pytest.mark.parametrize("block", [1, 2, 3])
def test_it_has_the_layers_of_dus_in_another_order(m, block):
    layers = 12
    assert sorted(layout_indices("idus", layers, {"m": m, "block": block})) == sorted(
        layout_indices("dus", layers, {"m": m})
    )


def test_one_block_as_long_as_a_copy_is_dus():
    assert layout_indices("idus", 12, {"m": 4, "block": 8}) == layout_indices("dus", 12, {"m": 4})


@pytest.mark.parametrize(("params", "name"), [({"m": 4, "block": 1}, "m=4"), ({"m": 1, "block": 4}, "block=4")])
def test_what_does_not_fit_the_stack_is_refused(params, name):
    with pytest.raises(LayoutError, match=name):
        layout_indices("idus", 4, params)
