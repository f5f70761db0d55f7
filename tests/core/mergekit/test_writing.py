"""What a recipe becomes in mergekit's words, and what it cannot become."""

from __future__ import annotations

import pytest
from families import family

from core.catalog import catalog
from core.errors import LayoutError, MergekitError
from core.mergekit import from_mergekit, to_mergekit
from core.mergekit.methods import METHODS
from core.recipe import Recipe, resolve

FAMILY = family("base", "a", "b", layers=4)
DEPTHS = dict.fromkeys(FAMILY, 4)


def recipe(names=("base", "a", "b"), **fields) -> Recipe:
    return Recipe.model_validate({"sources": [{"name": name, "model": name} for name in names], **fields})


def ties(**params) -> Recipe:
    return recipe(merge={"method": "ties", "base": "base", "params": params})


def written(found: Recipe):
    return to_mergekit(found, DEPTHS).config


def digests(found: Recipe) -> tuple[str, str]:
    """Of the recipe, and of what is read out of its mergekit form."""
    return resolve(found, FAMILY).digest(), resolve(from_mergekit(written(found)).recipe, FAMILY).digest()


def test_a_merge_is_written_with_everything_that_mergekit_must_be_told():
    assert written(ties(weight={"a": 1.0, "b": [0.2, 0.8]}, density=0.5)) == {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "base"},
            {"model": "a", "parameters": {"weight": 1.0}},
            {"model": "b", "parameters": {"weight": [0.2, 0.8]}},
        ],
        "parameters": {"density": 0.5},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"merge": {"method": "linear", "params": {"weight": {"base": 1, "a": [{"filter": "mlp", "value": [0, 1]}], "b": 2}}}},
        {"merge": {"method": "linear", "params": {"weight": [{"filter": "mlp", "value": {"base": 1, "a": 2, "b": 0.5}}, {"value": 0.3}]}}},
        {"merge": {"method": "slerp", "sources": ["b", "a"], "params": {"t": [0.1, 0.9]}}},
        {"merge": {"method": "slerp", "sources": ["b", "a"], "params": {}}, "tokenizer": "b"},
        {"merge": {"method": "ties", "base": "b", "params": {"density": [{"filter": "mlp", "value": 0.5}]}}},
        {"merge": {"method": "dare_ties", "base": "b", "params": {"rescale": "l1", "density": 0.5}}, "seed": 0},
        {"layout": {"preset": "dus", "source": "a", "params": {"m": 1}}},
        {"layout": {"preset": "idus", "source": "a", "params": {"m": 1, "block": 1}}, "tokenizer": "b"},
        {"slices": [{"sources": [{"source": "a", "layers": [3, 1, 2]}], "params": {"scale": 0.5}}]},
        {"slices": [{"sources": [{"source": "b", "range": [0, 2]}], "params": {"scale": {"b": [{"filter": "layers.1.", "value": 0.5}]}}}]},
        {"merge": {"method": "ties", "base": "base", "params": {"weight": {"groups": [0.2, 0.9]}, "density": {"a": {"groups": [0.1, 0.4, 0.7, 1.0]}, "b": 0.5}}}},
        {"path": {"sources": ["b", "a"], "include": [True, True, False, True, False, False, True, True]}},
    ],
)  # fmt: skip
def test_what_is_written_means_the_same(fields):
    ours, theirs = digests(recipe(**fields))
    found = resolve(recipe(**fields), FAMILY)
    again = resolve(from_mergekit(written(recipe(**fields))).recipe, FAMILY)
    assert [values(entry, found) for entry in stack(found)] == [values(entry, again) for entry in stack(again)]
    # Slices for groups say the same otherwise; a tokenizer that is not the base's becomes one that is aligned; sources
    # are declared in the order in which a path meets them.
    if "tokenizer" not in written(recipe(**fields)) and "groups" not in str(fields) and "path" not in fields:
        assert ours == theirs


def stack(found):
    return (found.embed, *found.layers, found.head)


def values(entry, found):
    """What an entry makes of which weights, whatever its sources are called and in whatever order a recipe has them."""
    sources = [(found.sources[source].weights, layer) for source, layer in entry.sources]
    base = None if entry.base is None else sources[entry.base]
    groups = [
        (tensor, group.params, group.scale, sorted(zip(sources, map(repr, group.source_params), strict=False)))
        for group in entry.groups
        for tensor in group.tensors
    ]
    return entry.method, base, sorted(groups, key=lambda group: group[0]), sources if base is None else None


def test_groups_are_slices():
    found = written(ties(weight={"groups": [0.2, 0.9]}, density=0.5))
    assert [part["sources"][0]["layer_range"] for part in found["slices"]] == [[0, 2], [2, 4]]
    assert [part["parameters"] for part in found["slices"]] == [
        {"weight": 0.2, "density": 0.5},
        {"weight": 0.9, "density": 0.5},
    ]


def test_settings_that_all_slices_share_stand_once():
    part = {"sources": [{"source": "a", "layers": [0, 2, 3]}, {"source": "b", "layers": [0, 1, 2]}], "method": "linear"}
    found = written(recipe(slices=[part]))
    assert found["parameters"] == {"weight": 1.0} and not any("parameters" in each for each in found["slices"])
    assert [[s["layer_range"] for s in each["sources"]] for each in found["slices"]] == [
        [[0, 1], [0, 1]],
        [[2, 4], [1, 3]],
    ]


def test_recipes_within_recipes_are_stages_written_once():
    inner = {
        "sources": [{"name": "x", "model": "a"}, {"name": "y", "model": "b"}],
        "merge": {"method": "linear"},
        "save_dtype": "float16",
    }
    sources = [{"name": "a", "recipe": inner}, {"name": "again", "recipe": inner}, {"name": "base", "model": "base"}]
    outer = Recipe.model_validate({"sources": sources, "merge": {"method": "linear", "sources": ["a", "base"]}})
    first, last = to_mergekit(outer).documents
    # A model is called `a` already.
    assert (first["name"], first["out_dtype"]) == ("a-2", "float16")
    assert [model["model"] for model in last["models"]] == ["a-2", "base"] and "name" not in last
    ours, theirs = digests(outer)
    assert ours == theirs


@pytest.mark.parametrize(
    ("model", "adapter", "said"),
    [
        ("local:some/where", None, "some/where"),
        ("hub:org/name@0123abc", "local:lora", "org/name@0123abc+lora"),
        ("local:a+b", None, {"model": {"path": "a+b", "revision": None}, "lora": None}),
    ],
)
def test_references_are_said_as_mergekit_reads_them(model, adapter, said):
    source = {"name": "x", "model": model, "adapter": adapter}
    found = to_mergekit(Recipe.model_validate({"sources": [source], "merge": {"method": "passthrough"}})).config
    assert found["models"] == [{"model": said}] and found["base_model"] == said


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (None, {}),
        ("a", {"tokenizer": {"source": "a"}}),
        (
            {"mode": "align", "source": "base", "pad_to_multiple_of": 8},
            {"tokenizer": {"source": "base", "pad_to_multiple_of": 8}},
        ),
        ({"mode": "align", "source": "b"}, {"tokenizer": {"source": "b"}}),
        ({"mode": "union", "source": "base"}, {"tokenizer": {"source": "union"}}),
    ],
)
def test_tokenizers(tokenizer, said):
    found = written(ties().evolve(tokenizer=tokenizer))
    assert {key: value for key, value in found.items() if key.startswith("tokenizer")} == said


def test_a_method_without_a_base_names_its_donor():
    found = recipe(merge={"method": "linear"}, tokenizer="b")
    assert written(found)["base_model"] == "b" and len(written(found)["models"]) == 3
    ours, theirs = digests(found)
    assert ours == theirs


def test_masks_are_told_to_be_others():
    found = to_mergekit(recipe(merge={"method": "dare_ties", "base": "base", "params": {"rescale": "l1"}}))
    assert any("--random-seed" in note for note in found.notes)


REPEATED = {"repeated": {"output": 0.5}, "layout": {"preset": "dus", "source": "a", "params": {"m": 1}}}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"merge": {"method": "dare_ties", "base": "base"}}, "rescale .* 'inv_density'"),
        ({"merge": {"method": "ties", "base": "base", "params": {"elect": "unweighted"}}}, "always has elect 'weighted'"),
        ({"merge": {"method": "ties", "base": "base", "params": {"scale": 0.5}}}, "always has scale 1.0"),
        ({"merge": {"method": "ties", "base": "base", "params": {"densty": 0.5}}}, "no parameter 'densty'"),
        ({"merge": {"method": "ties", "base": "base", "params": {"lambda": {"a": 1, "b": 2}}}}, "one value for all models"),
        ({"merge": {"method": "ties", "base": "base", "params": {"weight": {"a": 1}}}}, "need one for 'b'"),
        ({"merge": {"method": "ties", "base": "base", "params": {"weight": "heavy"}}}, "'heavy'"),
        ({"merge": {"method": "ties"}}, "name one in `base`"),
        ({"merge": {"method": "ties", "base": "c"}}, "no source 'c'"),
        ({"merge": {"method": "linear", "params": {"weight": {"groups": [1, 2, 3, 4, 5]}}}}, "5 groups for 4 layers"),
        ({"merge": {"method": "linear", "params": {"weight": {"base": {"groups": [1, 2]}, "a": [0, 1], "b": 1}}}}, "gradient"),
        ({"merge": {"method": "linear", "params": {"weight": [{"filter": "mlp", "value": [{"filter": "up", "value": 1}]}]}}}, "filters within"),
        ({"slices": [{"sources": [{"source": "a", "layers": [2, 1]}], "params": {"scale": [0.5, 1.0]}}]}, "cut at"),
        ({"slices": [{"sources": [{"source": "a", "range": [0, 2]}]}, {"sources": [{"source": "a", "range": [0, 2]}], "method": "linear"}]}, "one method"),
        ({"merge": {"method": "linear"}, "tokenizer": {"mode": "union", "source": "a"}, "sources": [{"name": "a", "recipe": None, "model": "c"}, {"name": "b", "model": "c"}]}, "enters more often"),
        ({"merge": {"method": "ties", "base": "base"}, "tokenizer": {"mode": "union", "source": "a"}}, "union"),
        ({"merge": {"method": "ties", "base": "base"}, "tokenizer": "c"}, "no 'c'"),
        (REPEATED, "nothing like `repeated`"),
        ({"path": {"sources": ["b", "a"], "include": [True] * 8, "scales": [None] * 7 + [0.5]}}, "residual stream"),
        ({"path": {"sources": ["b", "a"], "include": [True] * 8, "head": "b"}}, "embedding and head"),
    ],
)  # fmt: skip
def test_what_mergekit_cannot_say_is_refused(fields, says):
    with pytest.raises(MergekitError, match=says) as caught:
        to_mergekit(recipe(**fields), DEPTHS)
    assert caught.value.code == "mergekit_unsupported" and caught.value.reasons


def test_everything_that_cannot_be_said_is_listed_at_once():
    params = {"rescale": "inv_density", "scale": 2.0, "elect": "unweighted", "lambda": {"a": 1, "b": 1}}
    with pytest.raises(MergekitError) as caught:
        to_mergekit(recipe(merge={"method": "dare_ties", "base": "base", "params": params}), DEPTHS)
    assert len(caught.value.reasons) == 4
    assert all(reason in caught.value.message for reason in caught.value.reasons)


def test_layouts_and_groups_need_a_depth():
    for found in (recipe(layout={"preset": "dus", "source": "a"}), ties(weight={"groups": [0, 1]})):
        with pytest.raises(MergekitError, match="depth of"):
            to_mergekit(found)
    with pytest.raises(LayoutError):
        to_mergekit(recipe(layout={"preset": "dus", "source": "a", "params": {"m": 4}}), DEPTHS)


@pytest.mark.parametrize("name", sorted(info.name for info in catalog().methods if info.name not in METHODS))
def test_a_method_that_mergekit_lacks_is_refused_by_name(name):
    with pytest.raises(MergekitError, match=f"no merge method '{name}'"):
        to_mergekit(recipe(merge={"method": name, "base": "base"}), DEPTHS)
