from __future__ import annotations

import pytest

from core.errors import LayoutError, RecipeError
from core.recipe.layouts import layout_indices

# fmt: off
SOLAR = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
    8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
)
# fmt: on


def test_32_layers_become_the_papers_48():
    assert layout_indices("solar-10.7b", 32, {}) == SOLAR


def test_other_depths_keep_the_quarters():
    assert layout_indices("solar-10.7b", 8, {}) == (0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("layers", [1, 30, 33])
def test_a_depth_without_quarters_is_refused_by_its_number(layers):
    with pytest.raises(LayoutError, match=f"{layers} layers"):
        layout_indices("solar-10.7b", layers, {})


def test_it_takes_no_parameters():
    with pytest.raises(RecipeError, match="'m'"):
        layout_indices("solar-10.7b", 32, {"m": 8})
