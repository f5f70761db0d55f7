from __future__ import annotations

import pytest

from core.errors import LayoutError, RecipeError
from core.recipe.layouts import layout_indices


def test_the_order_is_the_one_that_was_given():
    assert layout_indices("permute", 4, {"order": [2, 0, 3, 1]}) == (2, 0, 3, 1)


@pytest.mark.parametrize(("order", "says"), [([0, 1, 1, 3], "layer 1 is there 2"), ([0, 1, 3], "layer 2 is there 0")])
def test_every_layer_stands_there_once(order, says):
    with pytest.raises(LayoutError, match=says):
        layout_indices("permute", 4, {"order": order})


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(LayoutError, match="4"):
        layout_indices("permute", 4, {"order": [0, 1, 2, 4]})


def test_without_an_order_there_is_nothing_to_do():
    with pytest.raises(RecipeError, match="order"):
        layout_indices("permute", 4, {})
