from __future__ import annotations

import pytest

from core.errors import LayoutError
from core.recipe.layouts import layout_indices

# fmt: off
IDUS_8 = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15,
    16, 17, 18, 19, 20, 21, 22, 23, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
)
# fmt: on


def test_32_layers_become_the_studys_48():
    assert layout_indices("idus-8", 32, {}) == IDUS_8


def test_other_depths_keep_the_quarters():
    assert layout_indices("idus-8", 8, {}) == (0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7)


def test_a_depth_without_quarters_is_refused_by_its_number():
    with pytest.raises(LayoutError, match="31 layers"):
        layout_indices("idus-8", 31, {})
