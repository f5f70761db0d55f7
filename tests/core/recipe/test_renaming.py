from core.recipe import Recipe
from core.recipe.renaming import renamed

NAMES = {"base": "root", "a": "b", "b": "a"}


def of(**fields) -> Recipe:
    sources = [{"name": name, "model": name} for name in ("base", "a", "b")]
    return Recipe.model_validate({"sources": sources, "seed": 7, **fields})


def test_models_sources_and_values_per_source_change_places_at_once():
    params = {
        "weight": {"a": 0.25, "b": {"groups": [0.1, 0.9]}},
        "density": [{"filter": "a", "value": {"a": 0.5, "b": [0.1, 0.2]}}, {"value": 0.3}],
    }
    found = renamed(of(merge={"method": "ties", "base": "base", "sources": ["a", "b"], "params": params}), NAMES)
    assert [(source.name, source.model) for source in found.sources] == [("root", "root"), ("b", "b"), ("a", "a")]
    assert (found.merge.base, found.merge.sources) == ("root", ("b", "a"))
    assert found.merge.params == {
        "weight": {"b": 0.25, "a": {"groups": [0.1, 0.9]}},
        # A filter is a part of a tensor's name.
        "density": [{"filter": "a", "value": {"b": 0.5, "a": [0.1, 0.2]}}, {"value": 0.3}],
    }
    assert renamed(found, {new: old for old, new in NAMES.items()}) == of(
        merge={"method": "ties", "base": "base", "sources": ["a", "b"], "params": params}
    )


def test_layouts_slices_and_tokenizers_name_sources_too():
    layout = renamed(of(layout={"preset": "dus", "source": "a"}, tokenizer="b"), NAMES)
    assert (layout.layout.source, layout.donor) == ("b", "a")
    part = {"sources": [{"source": "a", "range": [0, 2]}, {"source": "b", "range": [0, 2]}], "base": "base"}
    (found,) = renamed(of(slices=[part | {"method": "ties"}]), NAMES).slices
    assert ([each.source for each in found.sources], found.base) == (["b", "a"], "root")


def test_what_has_no_new_name_cannot_be_renamed():
    recipe = of(merge={"method": "linear"})
    assert renamed(recipe, {"base": "root", "a": "b"}) is None
    inner = of(merge={"method": "linear"}).model_dump(mode="json")
    nested = Recipe.model_validate(
        {"sources": [{"name": "inner", "recipe": inner}, {"name": "a", "model": "a"}], "merge": {"method": "linear"}}
    )
    assert renamed(nested, {"inner": "outer", "a": "b"}) is None
