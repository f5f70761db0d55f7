import pytest
from families import family, model
from pydantic import ValidationError

from core.errors import LayoutError, ParentsDoNotFitError, RecipeError, UnknownModelError
from core.recipe import Recipe, resolve
from core.recipe.forms import form_of

FAMILY = family("base", "a", "b")
DEPTHS = {"a": 2, "b": 3}


def recipe(*names, **form):
    return Recipe.model_validate({"sources": [{"name": name, "model": name} for name in names or "ab"], **form})


def layers_of(form):
    return [(part.sources[0].source, list(part.sources[0].indices())) for part in form.slices]


def test_slices_take_layers_from_models_of_different_depth():
    models = {"a": model("a", layers=2), "b": model("b", layers=5)}
    wanted = recipe(
        slices=[
            {"sources": [{"source": "b", "range": [0, 2]}]},
            {"sources": [{"source": "a", "layers": [1]}, {"source": "b", "layers": [4]}], "method": "linear"},
            {"sources": [{"source": "b", "layers": [4, 3]}]},
        ]
    )
    resolved = resolve(wanted, models)
    assert [entry.sources for entry in resolved.layers] == [
        ((1, 0),),
        ((1, 1),),
        ((0, 1), (1, 4)),
        ((1, 4),),
        ((1, 3),),
    ]
    assert (resolved.embed.sources, resolved.head.sources) == (((1, -1),), ((1, -1),))
    with pytest.raises(LayoutError, match="'a' has layers 0 to 1"):
        resolve(recipe(slices=[{"sources": [{"source": "a", "layers": [2]}]}]), models)


def test_a_path_is_slices_of_runs_through_one_source_with_the_factors_the_stream_gathers():
    path = {"sources": ["a", "b"], "include": [1, 1, 0, 1, 1], "scales": [2.0, None, None, 0.25, 3.0]}
    form = form_of(recipe(path=path), DEPTHS)
    assert layers_of(form) == [("a", [0, 1]), ("b", [1, 2])]
    assert form.streams == (2.0, 2.0, 0.5, 1.5)
    assert [part.sources[0].source for part in (form.embed, form.head)] == ["a", "b"]


@pytest.mark.parametrize(
    ("include", "named", "edges"),
    [
        ([1, 0, 0, 0, 0], {}, ["a", "a"]),
        ([0, 0, 1, 0, 0], {}, ["a", "b"]),
        ([0, 0, 1, 0, 0], {"embed": "b"}, ["b", "b"]),
        ([1, 1, 1, 1, 1], {"embed": "b", "head": "a"}, ["b", "a"]),
    ],
)
def test_the_embedding_is_the_first_sources_and_the_head_the_last_used_ones_unless_named(include, named, edges):
    form = form_of(recipe(path={"sources": ["a", "b"], "include": include, **named}), DEPTHS)
    assert [part.sources[0].source for part in (form.embed, form.head)] == edges


def test_a_source_that_only_gives_the_embedding_is_part_of_the_candidate():
    path = {"sources": ["a", "b"], "include": [0] * 4 + [1] * 4}
    resolved = resolve(recipe("base", "a", "b", path=path), FAMILY)
    assert [source.weights for source in resolved.sources] == ["digest-of-a", "digest-of-b"]
    assert resolved.embed.sources == ((0, -1),) and resolved.head.sources == ((1, -1),)


def test_a_path_without_scales_is_the_same_candidate_as_its_slices():
    path = recipe(path={"sources": ["a", "b"], "include": [1, 0, 0, 1, 0, 1, 1, 0]})
    slices = recipe(
        slices=[
            {"sources": [{"source": "a", "layers": [0, 3]}]},
            {"sources": [{"source": "b", "layers": [1, 2]}]},
        ]
    )
    assert resolve(path, FAMILY).digest() == resolve(slices, FAMILY).digest()


@pytest.mark.parametrize("named", [{"sources": ["a", "c"]}, {"embed": "c"}, {"head": "c"}])
def test_a_source_of_a_path_that_nobody_knows_is_named(named):
    with pytest.raises(UnknownModelError, match="'c'"):
        form_of(recipe(path={"sources": ["a", "b"], "include": [1] * 5, **named}), DEPTHS)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"merge": {"method": "linear"}, "path": {"sources": ["a"], "include": [1]}},
        {"merge": {"method": "linear"}, "repeated": {}},
    ],
)
def test_a_recipe_has_one_form_and_factors_only_where_layers_may_repeat(form):
    with pytest.raises(ValidationError):
        recipe(**form)


def test_the_layers_of_a_path_count_towards_the_limit():
    half = {"name": "x", "recipe": {"sources": [{"name": "a", "model": "a"}], "path": _long(2048)}}
    with pytest.raises(ValidationError, match="at most 4096 layers"):
        Recipe.model_validate({"sources": [half, {"name": "b", "model": "b"}], "path": _long(2049, source="b")})


def _long(count, source="a"):
    return {"sources": [source], "include": [True] * count}


# -- families whose layers are not known --------------------------------------------------------------------------------


def unknown(*names):
    found = {}
    for name in names:
        known = model(name)
        found[name] = known.evolve(header=known.header.evolve(model_type="rwkv", layers=0))
    return found


UNKNOWN = unknown("base", "a", "b")
WORDS = ("base", "a", "b")


def test_a_family_that_is_not_known_merges_tensor_by_tensor_outside_any_stack():
    params = {"weight": {"a": [0.25, 9.0], "b": [{"filter": "up_proj", "value": 2.0}, {"value": 0.5}]}}
    resolved = resolve(recipe(*WORDS, merge={"method": "task_arithmetic", "base": "base", "params": params}), UNKNOWN)
    assert resolved.layers == () and resolved.layer_keys() == () and resolved.head.groups == ()
    weights = {name: group.source_params for group in resolved.embed.groups for name in group.tensors}
    assert sorted(weights) == sorted(tensor.name for tensor in UNKNOWN["a"].header.tensors)
    # A gradient has its first value outside the stack; a filter is looked for in the full name.
    assert weights["lm_head.weight"][0]["weight"] == 0.25
    assert [weights[f"model.layers.{i}.mlp.up_proj.weight"][1]["weight"] for i in range(4)] == [2.0] * 4
    assert weights["model.norm.weight"][1]["weight"] == 0.5


@pytest.mark.parametrize(
    "form",
    [
        {"layout": {"preset": "dus", "source": "a", "params": {"m": 1}}},
        {"slices": [{"sources": [{"source": "a", "range": [0, 2]}]}]},
        {"slices": [{"sources": [{"source": "a", "layers": []}]}]},
        {"path": {"sources": ["a"], "include": [1]}},
    ],
)
def test_its_layers_cannot_be_moved(form):
    with pytest.raises(LayoutError, match="use `merge`"):
        resolve(recipe(*WORDS, **form), UNKNOWN)


@pytest.mark.parametrize("value", [{"groups": [0.1, 0.9]}, {"a": 0.5, "b": {"groups": [1, 2]}}])
def test_its_stack_cannot_be_cut_into_groups(value):
    with pytest.raises(RecipeError, match="filters by tensor name") as caught:
        resolve(recipe("a", "b", merge={"method": "linear", "params": {"weight": value}}), UNKNOWN)
    assert caught.value.where == "weight"


def test_a_merge_of_it_may_be_merged_again_but_not_cut():
    inner = {"sources": [{"name": "a", "model": "a"}, {"name": "b", "model": "b"}], "merge": {"method": "linear"}}
    sources = [{"name": "m", "recipe": inner}, {"name": "base", "model": "base"}]
    outer = Recipe.model_validate({"sources": sources, "merge": {"method": "linear"}})
    assert resolve(outer, UNKNOWN).layers == ()
    with pytest.raises(LayoutError):
        resolve(Recipe.model_validate({"sources": sources, "layout": {"preset": "dus", "source": "m"}}), UNKNOWN)


def test_families_that_are_not_known_fit_only_under_one_config():
    odd = UNKNOWN["b"].evolve(header=UNKNOWN["b"].header.evolve(config='{"rope_theta":10000.0,"width":9}'))
    with pytest.raises(ParentsDoNotFitError, match="width"):
        resolve(recipe(merge={"method": "linear"}), UNKNOWN | {"b": odd})


def test_where_a_layer_computes_by_its_place_it_must_stay_there():
    models = {name: _gpt2(name) for name in "ab"}
    assert resolve(recipe(merge={"method": "linear"}), models).layers
    with pytest.raises(LayoutError, match="scale_attn_by_inverse_layer_idx"):
        resolve(recipe(layout={"preset": "drop", "source": "a", "params": {"layers": [0]}}), models)


def _gpt2(name):
    known = model(name, model_type="gpt2", config={"scale_attn_by_inverse_layer_idx": True})
    tensors = tuple(
        tensor.evolve(name=tensor.name.replace("model.layers", "transformer.h")) for tensor in known.header.tensors
    )
    return known.evolve(header=known.header.evolve(tensors=tensors))
