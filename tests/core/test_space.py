import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.catalog import catalog
from core.errors import SpaceError, UnknownLayoutError, UnknownMethodError, UnknownModelError
from core.params import ChoiceParam, FloatParam, IntParam
from core.recipe.layouts import layout_indices
from core.recipe.short import Recipe, Repeated, identity
from core.space import Hole, SearchSpace
from core.space_spec import SpaceSpec

MODELS = ("base", "a", "b", "c")
METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_ties", "nuslerp", "nearswap")


def space(*families, depth: int = 8, models=MODELS, **options) -> SearchSpace:
    return SearchSpace(SpaceSpec.model_validate({"families": families}), models, depth=depth, **options)


def merge(*methods: str, **options) -> dict:
    return {"family": "merge", "methods": methods, "base": "base"} | options


LAYOUT = {"family": "layout", "presets": ["dus", "idus"], "sources": ["a", "b"]}


@st.composite
def intervals(draw) -> dict:
    low = draw(st.floats(0.01, 0.9))
    return {"low": low, "high": draw(st.floats(low, 1.0)), "log": draw(st.booleans())}


@st.composite
def spaces(draw) -> SearchSpace:
    """Spaces over one to four models, with or without layouts, groups, blocks, own intervals and fixed values."""
    methods = draw(st.lists(st.sampled_from(METHODS), min_size=1, unique=True))
    sources = draw(
        st.lists(st.sampled_from("abc"), min_size=2 if {"slerp", "nuslerp"} & set(methods) else 1, unique=True)
    )
    taken = {spec.name for method in methods for spec in catalog().method(method).params}
    params = {}
    for name in sorted(taken & {"weight", "density", "t"}):
        wish = draw(st.one_of(st.none(), intervals(), st.floats(0.1, 1.0)))
        if wish is not None:
            params[name] = wish
    groups = draw(st.integers(1, 4))
    blocks = draw(st.lists(st.sampled_from(["self_attn", "mlp", "norm.weight"]), unique=True))
    families = [merge(*methods, sources=sources, layer_groups=groups, blocks=blocks, params=params)]
    if draw(st.booleans()):
        presets = draw(st.lists(st.sampled_from(["dus", "idus"]), min_size=1, unique=True))
        layout = {"family": "layout", "presets": presets, "sources": draw(st.permutations(sources))}
        families.insert(draw(st.integers(0, 1)), layout)
    return space(*families, depth=draw(st.integers(2, 40)))


def values_of(draw, compiled: SearchSpace) -> dict:
    """Any values inside a space, bounds included."""
    values: dict = {}
    for hole in compiled.holes:
        if not hole.active(values):
            continue
        spec = hole.spec
        if isinstance(spec, ChoiceParam):
            values[hole.name] = draw(st.sampled_from(spec.choices))
        elif isinstance(spec, IntParam):
            values[hole.name] = draw(st.integers(spec.search_low, spec.search_high))
        else:
            values[hole.name] = draw(st.floats(spec.search_low, spec.search_high))
    return values


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_fill_and_read_are_inverse(data):
    compiled = data.draw(spaces())
    values = values_of(data.draw, compiled)
    recipe = compiled.fill(values)
    assert compiled.read(recipe) == values
    assert compiled.fill(compiled.read(recipe)) == recipe
    # And through JSON, as a stored recipe comes back.
    assert compiled.read(Recipe.model_validate_json(recipe.model_dump_json())) == values


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_conditions_look_only_backwards_and_name_earlier_choices(data):
    compiled, seen = data.draw(spaces()), {}
    for hole in compiled.holes:
        assert hole.name not in seen
        for name, wanted in hole.when:
            assert isinstance(seen[name], ChoiceParam)
            assert wanted in seen[name].choices
        seen[hole.name] = hole.spec


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_missing_a_superfluous_and_an_outlying_value_are_each_refused_by_name(data):
    compiled = data.draw(spaces())
    values = values_of(data.draw, compiled)
    assume(values)
    name = data.draw(st.sampled_from(sorted(values)))
    spec = next(hole.spec for hole in compiled.holes if hole.name == name)
    outlier = "nothing" if isinstance(spec, ChoiceParam) else spec.search_high + 1
    with pytest.raises(SpaceError, match="has no value") as missing:
        compiled.check({key: value for key, value in values.items() if key != name})
    with pytest.raises(SpaceError, match="lies outside") as outside:
        compiled.check(values | {name: outlier})
    assert (missing.value.where, outside.value.where) == (name, name)
    with pytest.raises(SpaceError, match="is not a parameter"):
        compiled.check(values | {"zzz": 1.0})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_uniform_merge_of_every_method_lies_in_the_space(data):
    compiled = data.draw(spaces())
    methods = compiled.spec.families[0 if compiled.spec.families[0].family == "merge" else 1].methods
    found = compiled.uniform()
    assert [recipe.merge.method for recipe in found] == list(methods)
    for recipe in found:
        assert compiled.fill(compiled.read(recipe)) == recipe


def names(compiled: SearchSpace, **values) -> list[str]:
    return [hole.name for hole in compiled.active(values)]


def test_holes_read_like_paths_and_exist_under_their_method():
    compiled = space(merge("linear", "ties", layer_groups=2, sources=["a", "b"]), LAYOUT)
    assert names(compiled, family="merge", **{"merge.method": "linear"}) == [
        "family",
        "merge.method",
        "merge.linear.weight.a.g0",
        "merge.linear.weight.a.g1",
        "merge.linear.weight.b.g0",
        "merge.linear.weight.b.g1",
    ]
    layout = names(compiled, family="layout", **{"layout.preset": "idus"})
    assert layout == ["family", "layout.preset", "layout.source", "layout.idus.m", "layout.idus.block"]


def test_what_has_only_one_choice_is_no_hole():
    assert names(space(merge("task_arithmetic", sources=["a"]))) == ["merge.task_arithmetic.weight.a"]
    assert names(space(merge("slerp", sources=["a", "b"]))) == ["merge.slerp.t"]
    single = {"family": "layout", "presets": ["dus"], "sources": ["a"]}
    assert names(space(single)) == ["layout.dus.m"]


def test_slerp_over_three_sources_chooses_a_pair():
    compiled = space(merge("slerp"))
    pair = compiled.holes[0]
    assert (pair.name, pair.spec.choices) == ("merge.slerp.pair", ("a|b", "a|c", "b|c"))
    recipe = compiled.fill({"merge.slerp.pair": "b|c", "merge.slerp.t": 0.25})
    assert (recipe.merge.sources, recipe.merge.params) == (("b", "c"), {"t": 0.25})
    assert [source.name for source in recipe.sources] == ["b", "c"]


def test_a_merge_is_filled_with_base_sources_and_grouped_weights():
    compiled = space(merge("task_arithmetic", layer_groups=2, sources=["a", "c"]), save_dtype="float32", seed=5)
    weights = {f"merge.task_arithmetic.weight.{s}.g{g}": 0.1 * g for s in "ac" for g in range(2)}
    recipe = compiled.fill(weights)
    assert recipe.merge.base == "base"
    assert recipe.merge.sources == ("a", "c")
    assert recipe.merge.params == {"weight": {"a": {"groups": [0.0, 0.1]}, "c": {"groups": [0.0, 0.1]}}}
    assert [source.name for source in recipe.sources] == ["base", "a", "c"]
    assert (recipe.save_dtype, recipe.seed) == ("float32", 5)


def test_own_intervals_replace_the_defaults_and_fixed_values_enter_every_recipe():
    wishes = {"weight": {"low": 0.5, "high": 2.5}, "density": 0.4, "lambda": {"low": 0.5, "high": 0.7}}
    compiled = space(merge("ties", sources=["a", "b"], params=wishes))
    assert names(compiled) == ["merge.ties.weight.a", "merge.ties.weight.b", "merge.ties.lambda"]
    assert (compiled.holes[0].spec.search_low, compiled.holes[0].spec.search_high) == (0.5, 2.5)
    values = {"merge.ties.weight.a": 2.0, "merge.ties.weight.b": 0.5, "merge.ties.lambda": 0.6}
    params = compiled.fill(values).merge.params
    assert (params["density"], params["lambda"], params["weight"]) == (0.4, 0.6, {"a": 2.0, "b": 0.5})
    assert compiled.read(compiled.fill(values)) == values


def test_layout_bounds_stay_below_half_of_the_stack():
    for depth, high in ((4, 2), (8, 4), (40, 16)):
        hole = next(h for h in space(LAYOUT, depth=depth).holes if h.name == "layout.dus.m")
        assert (hole.spec.search_low, hole.spec.search_high) == (1, high)
        assert hole.spec.search_low <= hole.spec.default <= high


@pytest.mark.parametrize("name", [info.name for info in catalog().layouts if info.searchable])
@pytest.mark.parametrize("depth", [4, 8, 20])
def test_everything_a_search_may_ask_of_a_layout_fits_the_stack(name, depth):
    compiled = space({"family": "layout", "presets": [name], "sources": ["a"]}, depth=depth)
    choices = [range(hole.spec.search_low, hole.spec.search_high + 1) for hole in compiled.holes]
    for numbers in itertools.product(*choices):
        values = dict(zip((hole.name for hole in compiled.holes), numbers, strict=True))
        recipe = compiled.fill(values)
        indices = layout_indices(name, depth, recipe.layout.params)
        assert indices and set(indices) <= set(range(depth))
        assert compiled.read(recipe) == values


def test_factors_on_repeated_layers_may_be_fixed_or_searched():
    fixed = space({"family": "layout", "presets": ["idus-8"], "sources": ["a"], "repeated": {}})
    assert fixed.holes == ()
    assert fixed.fill({}).repeated == Repeated(attention=0.5, output=1.0)
    family = {"family": "layout", "presets": ["dus", "idus-8"], "sources": ["a"]}
    wanted = {"attention": {"low": 0.25, "high": 1.0}, "output": 0.6}
    compiled = space(family | {"repeated": wanted})
    values = {"layout.preset": "idus-8", "layout.repeated.attention": 0.75}
    assert [hole.name for hole in compiled.active(values)] == list(values)
    recipe = compiled.fill(values)
    assert recipe.repeated == Repeated(attention=0.75, output=0.6)
    assert compiled.read(recipe) == values
    for other in (recipe.evolve(repeated=None), recipe.evolve(repeated=Repeated(attention=0.75))):
        with pytest.raises(SpaceError, match="cannot be expressed"):
            compiled.read(other)
    with pytest.raises(SpaceError, match="attention"):
        space(family | {"repeated": {"attention": {"low": 0.0, "high": 1.0}}})


def test_a_layout_that_takes_a_list_cannot_be_searched():
    with pytest.raises(SpaceError, match="list of layers"):
        space({"family": "layout", "presets": ["permute"], "sources": ["a"]})
    listed = {"preset": "drop", "source": "a", "params": {"layers": [1]}}
    with pytest.raises(SpaceError, match="cannot be expressed"):
        space({"family": "layout", "presets": ["drop"], "sources": ["a"]}).read(
            Recipe.model_validate({"sources": [{"name": "a", "model": "a"}], "layout": listed})
        )


def test_a_layout_is_filled_with_whole_numbers():
    values = {"layout.preset": "idus", "layout.source": "b", "layout.idus.m": 2, "layout.idus.block": 1}
    layout = space(LAYOUT).fill(values).layout
    assert (layout.preset, layout.source, layout.params) == ("idus", "b", {"m": 2, "block": 1})


def test_the_uniform_merge_gives_every_source_an_equal_share():
    recipe = space(merge("linear")).uniform()[0]
    assert recipe.merge.params["weight"] == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert space(LAYOUT).uniform() == []


@pytest.mark.parametrize(
    ("families", "error", "message"),
    [
        ([merge("linaer")], UnknownMethodError, "did you mean 'linear'"),
        ([LAYOUT | {"presets": ["duss"]}], UnknownLayoutError, "did you mean 'dus'"),
        ([merge("linear", sources=["a", "x"])], UnknownModelError, "'x'"),
        ([LAYOUT | {"sources": ["bb"]}], UnknownModelError, "did you mean 'b'"),
        ([merge("ties", base=None)], SpaceError, "name one in `base`"),
        ([merge("slerp", sources=["a"])], SpaceError, "needs 2 sources"),
        ([merge("linear"), merge("ties")], SpaceError, "join the two"),
        ([merge("linear", params={"density": 0.5})], SpaceError, "no chosen method has a parameter 'density'"),
        ([merge("ties", params={"normalize": {"low": 0, "high": 1}})], SpaceError, "is a choice"),
        ([merge("ties", params={"density": {"low": 0.5, "high": 1.5}})], SpaceError, "may be searched within"),
        ([merge("ties", params={"density": {"low": 0.9, "high": 0.1}})], SpaceError, "may be searched within"),
        ([merge("ties", params={"weight": {"low": 0.0, "high": 1.0, "log": True}})], SpaceError, "above 0"),
        ([merge("ties", params={"density": 1.5})], SpaceError, "must lie in"),
        ([merge("ties", params={"normalize": "yes"})], SpaceError, "must be one of"),
    ],
)
def test_wrong_spaces_are_refused_with_a_way_out(families, error, message):
    with pytest.raises(error, match=message):
        space(*families)


def test_recipes_outside_the_space_cannot_be_read():
    compiled = space(merge("linear", sources=["a", "b"]), LAYOUT)
    other = space(merge("ties", sources=["a", "b"])).uniform()[0]
    free = Recipe.model_validate(
        {"sources": [{"name": "a", "model": "a"}], "slices": [{"sources": [{"source": "a", "range": [0, 2]}]}]}
    )
    wide = compiled.uniform()[0].evolve(seed=9)
    for recipe in (other, wide, identity("a", save_dtype="bfloat16")):
        with pytest.raises(SpaceError, match="cannot be expressed"):
            compiled.read(recipe)
    with pytest.raises(SpaceError, match="free slices"):
        compiled.read(free)


def test_a_value_is_admitted_only_inside_its_own_kind():
    weight = Hole(name="w", spec=FloatParam(name="w", default=0.5, search_low=0.0, search_high=1.0))
    choice = Hole(name="c", spec=ChoiceParam(name="c", default=True, choices=(True, False)))
    assert weight.admits(0.0)
    assert weight.admits(1)
    assert not weight.admits(1.0000001)
    assert not weight.admits("0.5")
    assert choice.admits(False)
    assert not choice.admits("False")
    whole = Hole(name="m", spec=IntParam(name="m", default=2, search_low=1, search_high=4))
    assert whole.admits(4)
    assert not whole.admits(2.5)
    assert not whole.admits(float("nan"))


@pytest.mark.parametrize(
    "family",
    [
        {"family": "merge", "methods": ["linear", "linear"]},
        {"family": "merge", "methods": ["linear"], "sources": ["a", "a"]},
        {"family": "layout", "presets": ["dus", "dus"], "sources": ["a"]},
        {"family": "layout", "presets": ["dus"], "sources": ["a", "a"]},
        {"family": "merge", "methods": ["linear"], "sources": [f"s{i}" for i in range(65)]},
        {"family": "merge", "methods": [f"m{i}" for i in range(65)]},
        {"family": "merge", "methods": ["linear"], "params": {f"p{i}": 1.0 for i in range(65)}},
    ],
)
def test_no_list_of_a_family_multiplies_the_space_without_end(family):
    with pytest.raises(ValidationError, match=r"named once|at most 64"):
        SpaceSpec.model_validate({"families": [family]})


def between(method, models=MODELS, base="base", **fields):
    return space(merge(method, base=base, **fields), models=models)


def test_a_method_that_takes_one_source_chooses_it():
    compiled = between("nearswap")
    assert [(hole.name, hole.spec.kind) for hole in compiled.holes] == [
        ("merge.nearswap.source", "choice"),
        ("merge.nearswap.t", "float"),
    ]
    values = {"merge.nearswap.source": "b", "merge.nearswap.t": 0.01}
    recipe = compiled.fill(values)
    assert (recipe.merge.sources, recipe.merge.base) == (("b",), "base")
    assert compiled.read(recipe) == values
    assert [hole.name for hole in between("nearswap", ("base", "a")).holes] == ["merge.nearswap.t"]


@pytest.mark.parametrize("groups", [1, 2])
def test_the_weights_of_a_chosen_pair_belong_to_its_places(groups):
    compiled = between("nuslerp", layer_groups=groups)
    places = ["1", "2"] if groups == 1 else ["1.g0", "1.g1", "2.g0", "2.g1"]
    assert [hole.name for hole in compiled.holes[1:]] == [f"merge.nuslerp.weight.{place}" for place in places]
    values = {"merge.nuslerp.pair": "a|c"} | {f"merge.nuslerp.weight.{p}": i / 8 for i, p in enumerate(places)}
    recipe = compiled.fill(values)
    assert set(recipe.merge.params["weight"]) == {"a", "c"}
    assert compiled.read(recipe) == values


def test_a_base_is_used_by_the_methods_that_may_take_one_and_by_no_other():
    assert between("nuslerp").uniform()[0].merge.base == "base"
    assert between("nuslerp", base=None).uniform()[0].merge.base is None
    assert between("karcher").uniform()[0].merge.base is None


def test_a_recipe_with_more_sources_than_its_method_takes_is_in_no_space():
    compiled = between("slerp", base=None)
    recipe = compiled.uniform()[0]
    crowded = recipe.evolve(merge=recipe.merge.evolve(sources=("a", "b", "c")))
    with pytest.raises(SpaceError, match="cannot be expressed"):
        compiled.read(crowded)


def test_every_block_of_tensors_has_its_own_values_and_so_have_all_the_rest():
    compiled = between("atlas", ("base", "a"), blocks=["q_proj", "mlp"], layer_groups=2)
    places = [f"{block}.g{group}" for block in ("q_proj", "mlp", "rest") for group in range(2)]
    assert [hole.name for hole in compiled.holes] == [f"merge.atlas.weight.a.{place}" for place in places]
    values = {f"merge.atlas.weight.a.{place}": i / 8 for i, place in enumerate(places)}
    recipe = compiled.fill(values)
    assert recipe.merge.params["weight"]["a"] == [
        {"filter": "q_proj", "value": {"groups": [0.0, 0.125]}},
        {"filter": "mlp", "value": {"groups": [0.25, 0.375]}},
        {"value": {"groups": [0.5, 0.625]}},
    ]
    assert compiled.read(recipe) == values


def test_what_holds_for_a_whole_recipe_has_no_blocks():
    compiled = between("rws", ("base", "a", "b"), blocks=["mlp"])
    assert [hole.name for hole in compiled.holes if hole.name.startswith("merge.rws.layers")] == ["merge.rws.layers"]


@pytest.mark.parametrize("blocks", [["rest"], [""], ["mlp", "mlp"], ["a b"], [f"b{i}" for i in range(17)]])
def test_blocks_are_few_distinct_filters_that_a_name_can_hold(blocks):
    with pytest.raises(ValidationError):
        between("ties", blocks=blocks)


def test_a_recipe_whose_values_have_another_form_is_in_no_space():
    compiled = between("linear", base=None)
    recipe = compiled.uniform()[0]
    sloped = recipe.evolve(merge=recipe.merge.evolve(params={"weight": {s: [0.1, 0.9] for s in recipe.merge.sources}}))
    with pytest.raises(SpaceError, match="cannot be expressed"):
        compiled.read(sloped)
