import tracemalloc

import pytest
from pydantic import ValidationError

from core.recipe.limits import MAX_LAYERS, MAX_NESTING, MAX_RECIPES, MAX_SLICES
from core.recipe.short import Recipe, SliceSource

SOURCES = [{"name": "a", "model": "a"}]


def sliced(*parts, **more):
    return {"sources": SOURCES, "slices": [{"sources": [{"source": "a", **part}]} for part in parts], **more}


def inner(levels):
    """A recipe of `levels` recipes within one another."""
    found = sliced({"range": (0, 1)})
    for _ in range(levels - 1):
        found = sliced({"range": (0, 1)}, sources=[{"name": "a", "recipe": found}])
    return found


def test_a_range_costs_nothing_before_its_bounds_are_checked():
    tracemalloc.start()
    with pytest.raises(ValidationError, match="0 <= start < stop <= 4096"):
        SliceSource(source="a", range=(0, 10_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("bounds", [(-1, 2), (2, 2), (3, 2), (0, MAX_LAYERS + 1), (10**30, 10**31)])
def test_a_range_outside_the_limits_is_refused(bounds):
    with pytest.raises(ValidationError, match="range"):
        SliceSource(source="a", range=bounds)


@pytest.mark.parametrize("layers", [[-1], [MAX_LAYERS], [10**30], [0] * (MAX_LAYERS + 1)])
def test_explicit_layers_outside_the_limits_are_refused(layers):
    with pytest.raises(ValidationError, match="layers"):
        SliceSource(source="a", layers=layers)


def test_both_forms_of_a_slice_give_its_layers_in_order():
    assert list(SliceSource(source="a", range=(2, 5)).indices()) == [2, 3, 4]
    assert list(SliceSource(source="a", layers=(4, 2)).indices()) == [4, 2]
    assert len(SliceSource(source="a", range=(0, MAX_LAYERS)).indices()) == MAX_LAYERS
    assert list(SliceSource(source="a", layers=(MAX_LAYERS - 1,)).indices()) == [MAX_LAYERS - 1]


def test_a_recipe_has_at_most_so_many_layers():
    Recipe.model_validate(sliced({"range": (0, MAX_LAYERS - 1)}, {"range": (0, 1)}))
    with pytest.raises(ValidationError, match=f"at most {MAX_LAYERS} layers, but its slices have {MAX_LAYERS + 1}"):
        Recipe.model_validate(sliced({"range": (0, MAX_LAYERS)}, {"range": (0, 1)}))


def test_a_recipe_has_at_most_so_many_slices():
    Recipe.model_validate(sliced(*[{"range": (0, 1)}] * MAX_SLICES))
    with pytest.raises(ValidationError, match="slices"):
        Recipe.model_validate(sliced(*[{"range": (0, 1)}] * (MAX_SLICES + 1)))


def test_recipes_are_nested_at_most_so_deep():
    Recipe.model_validate(inner(MAX_NESTING))
    with pytest.raises(ValidationError, match=f"nested at most {MAX_NESTING} deep"):
        Recipe.model_validate(inner(MAX_NESTING + 1))
    with pytest.raises(ValidationError):
        Recipe.model_validate(inner(400))


def test_a_recipe_holds_at_most_so_many_others():
    def wide(count):
        parts = [{"name": f"n{i}", "recipe": sliced({"range": (0, 1)})} for i in range(count)]
        return {"sources": parts, "merge": {"method": "linear"}}

    Recipe.model_validate(wide(MAX_RECIPES - 1))
    with pytest.raises(ValidationError, match=f"at most {MAX_RECIPES} recipes"):
        Recipe.model_validate(wide(MAX_RECIPES))


def test_the_layers_of_nested_recipes_count_together():
    half = {"name": "a", "recipe": sliced({"range": (0, MAX_LAYERS // 2)})}
    Recipe.model_validate(sliced({"range": (0, MAX_LAYERS // 2)}, sources=[half]))
    with pytest.raises(ValidationError, match=f"at most {MAX_LAYERS} layers"):
        Recipe.model_validate(sliced({"range": (0, MAX_LAYERS // 2 + 1)}, sources=[half]))


@pytest.mark.parametrize("where", ["merge", "slices"])
def test_a_value_too_long_is_refused_with_the_recipe(where):
    params = {"weight": [0.5] * 10_000}
    recipe = {"sources": SOURCES, "merge": {"method": "linear", "params": params}}
    if where == "slices":
        recipe = sliced({"range": (0, 1)})
        recipe["slices"][0]["params"] = params
    with pytest.raises(ValidationError, match="weight"):
        Recipe.model_validate(recipe)


def test_no_source_is_called_like_the_groups_form():
    with pytest.raises(ValidationError, match="'groups' is reserved"):
        Recipe.model_validate({"sources": [{"name": "groups", "model": "m"}], "merge": {"method": "passthrough"}})
