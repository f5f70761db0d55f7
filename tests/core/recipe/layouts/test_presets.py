from __future__ import annotations

import pytest

from core.catalog import catalog
from core.errors import LayoutError, UnknownLayoutError
from core.recipe.layouts import layout_indices, presets


def test_the_catalogue_says_of_every_preset_what_its_file_says():
    told = [(info.name, info.summary, info.params, info.lists) for info in catalog().layouts]
    assert [(p.name, p.summary, p.params, p.lists) for p in presets().values()] == told
    assert [info.name for info in catalog().layouts if not info.searchable] == ["permute"]


def test_presets_are_found_in_sorted_order():
    assert list(presets()) == sorted(presets())


@pytest.mark.parametrize("name", [info.name for info in catalog().layouts if info.searchable])
def test_every_preset_gives_layers_the_source_has(name):
    for layers in (16, 24, 40):
        indices = layout_indices(name, layers, {})
        assert indices
        assert set(indices) <= set(range(layers))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownLayoutError, match="did you mean"):
        layout_indices("duss", 8, {})


@pytest.mark.parametrize("name", ["dus", "idus"])
def test_no_layout_makes_more_layers_than_a_recipe_may_have(name):
    assert len(layout_indices(name, 2049, {"m": 1})) == 4096
    with pytest.raises(LayoutError, match="at most 4096 layers"):
        layout_indices(name, 2050, {"m": 1})
