from __future__ import annotations

import pytest

from core.errors import LayoutError
from core.recipe.layouts import layout_indices

# fmt: off
IDUS_1 = (
    0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 8, 16, 9, 17, 10, 18, 11, 19,
    12, 20, 13, 21, 14, 22, 15, 23, 16, 24, 17, 25, 18, 26, 19, 27, 20, 28, 21, 29, 22, 30, 23, 31,
)
# fmt: on


def test_32_layers_become_the_studys_48():
    assert layout_indices("idus-1", 32, {}) == IDUS_1


def test_other_depths_keep_the_quarters():
    assert layout_indices("idus-1", 4, {}) == (0, 1, 1, 2, 2, 3)


def test_a_depth_without_quarters_is_refused_by_its_number():
    with pytest.raises(LayoutError, match="6 layers"):
        layout_indices("idus-1", 6, {})
