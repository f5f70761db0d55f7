from __future__ import annotations

import pytest

from core.errors import LayoutError, RecipeError
from core.recipe.layouts import layout_indices


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"stop": 5, "count": 2}, (0, 1, 2, 5)),
        ({"stop": 6}, (0, 1, 2, 3, 4)),
        ({"stop": 2, "count": 10**15}, (2, 3, 4, 5)),
        ({"layers": [1, 4]}, (0, 2, 3, 5)),
        ({"layers": (5, 5, 0)}, (1, 2, 3, 4)),
    ],
)
def test_the_layers_that_are_left_keep_their_order(params, expected):
    assert layout_indices("drop", 6, params) == expected


@pytest.mark.parametrize("params", [{"stop": 6, "count": 6}, {"layers": [0, 1, 2, 3, 4, 5]}, {"stop": 7}])
def test_a_stack_without_layers_and_a_block_above_it_are_refused(params):
    with pytest.raises(LayoutError):
        layout_indices("drop", 6, params)


@pytest.mark.parametrize("layers", [[6], [-1]])
def test_a_listed_layer_that_is_not_there_is_named(layers):
    with pytest.raises(LayoutError, match=str(layers[0])):
        layout_indices("drop", 6, {"layers": layers})


@pytest.mark.parametrize("layers", [[], 3, ["1"], [1.0], [True], "12"])
def test_what_is_no_list_of_layers_is_refused(layers):
    with pytest.raises(RecipeError, match="layers"):
        layout_indices("drop", 6, {"layers": layers})
