import subprocess
import sys

import pytest
from families import family, model

from core.catalog import catalog
from core.errors import (
    LayoutError,
    ParentsDoNotFitError,
    RecipeError,
    UnknownLayoutError,
    UnknownMethodError,
    UnknownModelError,
)
from core.recipe import Layout, Merge, Recipe, Slice, SliceSource, Source, identity, resolve

FAMILY = family("base", "a", "b")


def recipe(names=("base", "a", "b"), **parts):
    return Recipe(sources=tuple(Source(name=n, model=n) for n in names), **parts)


def ties(**params):
    return recipe(merge=Merge(method="ties", base="base", params=params))


def group_of(entry, suffix):
    return next(group for group in entry.groups if suffix in group.tensors)


def test_every_tensor_of_every_layer_gets_one_value():
    resolved = resolve(ties(weight={"a": 1.0, "b": [0.0, 0.9]}), FAMILY)
    for index, entry in enumerate(resolved.layers):
        tensors = [t for group in entry.groups for t in group.tensors]
        assert sorted(tensors) == sorted(FAMILY["a"].header.layer_suffixes(index))
        group = group_of(entry, "mlp.up_proj.weight")
        by_source = {
            resolved.sources[s].weights: values
            for (s, _), values in zip(entry.sources, group.source_params, strict=True)
        }
        assert by_source["digest-of-a"]["weight"] == 1.0
        assert by_source["digest-of-b"]["weight"] == pytest.approx(0.3 * index)
        assert by_source["digest-of-base"] == {}
        assert resolved.sources[entry.sources[entry.base][0]].weights == "digest-of-base"


def test_filters_part_a_layer_into_groups():
    entry = resolve(ties(density=[{"filter": "mlp", "value": 0.3}, {"value": 0.6}]), FAMILY).layers[0]
    assert group_of(entry, "mlp.up_proj.weight").source_params[0]["density"] == 0.3
    assert group_of(entry, "self_attn.q_proj.weight").source_params[0]["density"] == 0.6


def scales(resolved, suffix="mlp.up_proj.weight"):
    return [group_of(entry, suffix).scale for entry in resolved.layers]


def restacked(scale):
    part = Slice(sources=(SliceSource(source="a", layers=(2, 3, 2)),), params={"scale": scale})
    return resolve(recipe(names=("a",), slices=(part,)), FAMILY)


def test_a_filter_is_looked_for_in_the_full_name_of_the_tensor_in_the_candidate():
    assert scales(restacked([{"filter": "layers.2.mlp", "value": 0.5}, {"value": 1.0}])) == [1.0, 1.0, 0.5]


def test_a_filter_of_one_source_is_looked_for_in_its_own_names():
    assert scales(restacked({"a": [{"filter": "layers.2.", "value": 0.5}, {"value": 1.0}]})) == [0.5, 1.0, 0.5]
    sources = (SliceSource(source="a", layers=(3, 2)), SliceSource(source="b", layers=(2, 3)))
    part = Slice(
        sources=sources, method="linear", params={"weight": [{"filter": "layers.2.", "value": 0.2}, {"value": 0.6}]}
    )
    entries = resolve(recipe(slices=(part,)), FAMILY).layers
    found = [[v["weight"] for v in group_of(entry, "mlp.up_proj.weight").source_params] for entry in entries]
    assert found == [[0.6, 0.2], [0.2, 0.6]]


def test_defaults_are_filled_so_that_saying_them_changes_nothing():
    assert resolve(ties(), FAMILY).digest() == resolve(ties(density=1.0, **{"lambda": 1.0}), FAMILY).digest()


def test_names_and_unused_sources_do_not_enter_the_digest():
    plain = recipe(names=("a",), merge=Merge(method="passthrough"))
    renamed = Recipe(
        sources=(Source(name="base", model="base"), Source(name="x", model="a")),
        merge=Merge(method="passthrough", sources=("x",)),
    )
    assert resolve(plain, FAMILY).digest() == resolve(renamed, FAMILY).digest()


def test_a_seed_counts_only_where_something_is_drawn():
    def digest(method, seed):
        return resolve(recipe(merge=Merge(method=method, base="base"), seed=seed), FAMILY).digest()

    assert digest("ties", 1) == digest("ties", 2)
    assert digest("dare_ties", 1) != digest("dare_ties", 2)


def test_save_dtype_enters_the_digest():
    digests = {resolve(identity("a", save_dtype=d), FAMILY).digest() for d in ("float32", "float16", "bfloat16")}
    assert len(digests) == 3


def test_layers_with_equal_content_share_a_key_wherever_they_stand():
    keys = resolve(recipe(names=("a",), layout=Layout(preset="dus", source="a", params={"m": 1})), FAMILY).layer_keys()
    # 0 1 2 | 1 2 3
    assert keys[1] == keys[3] and keys[2] == keys[4]
    assert len(set(keys)) == 4


def test_a_layout_over_a_merge_takes_layers_of_the_merge():
    inner = ties()
    outer = Recipe(sources=(Source(name="m", recipe=inner),), layout=Layout(preset="dus", source="m", params={"m": 1}))
    resolved = resolve(outer, FAMILY)
    assert [entry.sources for entry in resolved.layers] == [((0, i),) for i in (0, 1, 2, 1, 2, 3)]
    assert resolved.sources[0].recipe.digest() == resolve(inner, FAMILY).digest()
    assert set(resolved.model_digests()) == {"digest-of-base", "digest-of-a", "digest-of-b"}


def test_free_slices_stack_layers_of_several_models():
    resolved = resolve(
        recipe(
            slices=(
                Slice(sources=(SliceSource(source="a", range=(0, 2)),)),
                Slice(sources=(SliceSource(source="b", layers=(3, 3, 1)),)),
            )
        ),
        FAMILY,
    )
    stack = [(resolved.sources[entry.sources[0][0]].weights[-1], entry.sources[0][1]) for entry in resolved.layers]
    assert stack == [("a", 0), ("a", 1), ("b", 3), ("b", 3), ("b", 1)]
    assert resolved.sources[resolved.embed.sources[0][0]].weights == "digest-of-a"
    assert resolved.sources[resolved.head.sources[0][0]].weights == "digest-of-b"


def test_the_resolved_form_survives_json():
    resolved = resolve(ties(weight={"a": 0.1, "b": 1 / 3}), FAMILY)
    assert type(resolved).model_validate_json(resolved.model_dump_json()).digest() == resolved.digest()


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (Merge(method="tise", base="base"), UnknownMethodError, "did you mean 'ties'"),
        (Merge(method="ties", base="bas"), UnknownModelError, "did you mean 'base'"),
        (Merge(method="ties"), RecipeError, "base"),
        (Merge(method="ties", base="base", params={"densty": 1}), RecipeError, "densty"),
        (Merge(method="ties", base="base", params={"density": 1.5}), RecipeError, "1.5"),
        (Merge(method="linear", params={"weight": {"base": 1, "a": -1, "b": 0}}), RecipeError, "sum to 0"),
        (Merge(method="linear", params={"weight": {"a": 1, "b": 1}}), RecipeError, "base"),
        (Merge(method="slerp"), RecipeError, "2"),
        (Merge(method="slerp", sources=("a",)), RecipeError, "2"),
    ],
)
def test_wrong_merges_are_named(wrong, error, says):
    with pytest.raises(error, match=says):
        resolve(recipe(merge=wrong), FAMILY)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"layout": Layout(preset="duss", source="a")}, UnknownLayoutError),
        ({"layout": Layout(preset="dus", source="a", params={"m": 4})}, LayoutError),
        ({"layout": Layout(preset="dus", source="a", params={"m": 0})}, RecipeError),
        ({"layout": Layout(preset="dus", source="a", params={"k": 1})}, RecipeError),
        ({"layout": Layout(preset="idus", source="a", params={"m": 1, "block": 9})}, LayoutError),
        ({"slices": (Slice(sources=(SliceSource(source="a", range=(2, 5)),)),)}, LayoutError),
        ({"slices": (Slice(sources=(SliceSource(source="a", layers=(4,)),)),)}, LayoutError),
        ({"slices": (Slice(sources=(SliceSource(source="a", layers=()),)),)}, LayoutError),
        (
            {
                "slices": (
                    Slice(
                        method="linear",
                        sources=(SliceSource(source="a", range=(0, 2)), SliceSource(source="b", range=(0, 3))),
                    ),
                )
            },
            LayoutError,
        ),
    ],
)
def test_layouts_out_of_range_are_refused(wrong, error):
    with pytest.raises(error):
        resolve(recipe(**wrong), FAMILY)


def test_merging_parents_of_unequal_depth_is_refused():
    models = {"a": model("a", layers=4), "b": model("b", layers=5)}
    with pytest.raises(ParentsDoNotFitError, match="depth"):
        resolve(recipe(names=("a", "b"), merge=Merge(method="linear")), models)


def test_stacking_parents_of_unequal_depth_is_fine():
    models = {"a": model("a", layers=2), "b": model("b", layers=5)}
    slices = (
        Slice(sources=(SliceSource(source="a", range=(0, 2)),)),
        Slice(sources=(SliceSource(source="b", range=(2, 5)),)),
    )
    assert len(resolve(recipe(names=("a", "b"), slices=slices), models).layers) == 5


def test_the_digest_is_the_same_under_every_hash_seed():
    script = (
        "import sys; sys.path[:0] = ['tests/core']\n"
        "from families import family\n"
        "from core.recipe import *\n"
        "r = Recipe(sources=tuple(Source(name=n, model=n) for n in ('base', 'a', 'b')),"
        " merge=Merge(method='dare_ties', base='base', params={'weight': {'a': .3, 'b': .7}, 'density': .5}), seed=3)\n"
        "print(resolve(r, family('base', 'a', 'b')).digest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1


def test_equal_weights_under_another_config_are_another_candidate():
    plain = model("a", config={"rms_norm_eps": 1e-6})
    other = model("a", config={"rms_norm_eps": 1e-2})
    renamed = model("a", config={"rms_norm_eps": 1e-6, "_name_or_path": "x", "torch_dtype": "bfloat16"})
    first, second, third = (
        resolve(identity("a", save_dtype="float32"), {"a": m}).digest() for m in (plain, other, renamed)
    )
    assert first != second
    assert first == third


def test_another_tokenizer_is_another_candidate():
    plain = model("a")
    other = plain.evolve(header=plain.header.evolve(tokenizer_files="other"))
    digests = {resolve(identity("a", save_dtype="float32"), {"a": m}).digest() for m in (plain, other)}
    assert len(digests) == 2


def test_equal_weights_under_configs_that_mean_something_else_do_not_fit():
    models = {"a": model("a", rope=10000.0), "b": model("b", rope=2.0).evolve(weights_digest="digest-of-a")}
    with pytest.raises(ParentsDoNotFitError, match="RoPE"):
        resolve(recipe(names=("a", "b"), merge=Merge(method="linear")), models)


def test_the_tokenizers_donor_is_found_through_nested_recipes():
    inner = recipe(merge=Merge(method="ties", base="base"), tokenizer="b")
    outer = Recipe(sources=(Source(name="m", recipe=inner),), layout=Layout(preset="dus", source="m", params={"m": 1}))
    assert resolve(outer, FAMILY).tokenizer_donor() == "digest-of-b"
    assert resolve(inner, FAMILY).model_digests()[0] != "digest-of-b"


def nuslerp(base=None, **parts):
    return resolve(
        recipe(("base", "a", "b"), merge=Merge(method="nuslerp", base=base, sources=("a", "b"), **parts)), FAMILY
    )


def test_a_method_with_an_optional_base_takes_deltas_against_one_where_it_is_named():
    entry = nuslerp("base").layers[0]
    assert entry.base == 2
    assert [set(values) for values in entry.groups[0].source_params] == [{"weight"}, {"weight"}, set()]


def test_a_method_with_an_optional_base_goes_without_one():
    resolved = nuslerp()
    assert resolved.layers[0].base is None
    assert [source.weights for source in resolved.sources] == ["digest-of-a", "digest-of-b"]


def test_an_optional_base_is_left_out_of_the_sources_that_are_merged_by_default():
    entry = resolve(recipe(merge=Merge(method="nuslerp", base="base")), FAMILY).layers[0]
    assert (len(entry.sources), entry.base) == (3, 2)


def test_an_optional_base_does_not_count_among_the_sources():
    with pytest.raises(RecipeError, match="takes 2 sources besides its base, but got 1"):
        resolve(recipe(merge=Merge(method="nuslerp", base="base", sources=("a",))), FAMILY)
    with pytest.raises(RecipeError, match="takes 2 sources besides its base, but got 3"):
        resolve(recipe(merge=Merge(method="nuslerp")), FAMILY)


def test_a_slice_names_its_base_among_its_sources_and_only_where_the_method_takes_one():
    whole = [SliceSource(source=name, range=(0, 4)) for name in ("a", "b", "base")]
    based = recipe(slices=(Slice(sources=whole, method="nuslerp", base="base"),))
    assert {entry.base for entry in resolve(based, FAMILY).layers} == {2}
    with pytest.raises(UnknownModelError, match="base"):
        resolve(recipe(slices=(Slice(sources=whole[:2], method="nuslerp", base="base"),)), FAMILY)
    with pytest.raises(RecipeError, match="'linear' takes no base, but got 'base'"):
        resolve(recipe(slices=(Slice(sources=whole, method="linear", base="base"),)), FAMILY)


NORMALISED = [info.name for info in catalog().methods if {"weight", "normalize"} <= {p.name for p in info.params}]


@pytest.mark.parametrize("method", [name for name in NORMALISED if name != "linear"])
@pytest.mark.parametrize(
    "weight", [0.0, {"a": 1.0, "b": -1.0}, [{"filter": "mlp", "value": 0.5}, {"value": 0.0}]], ids=str
)
def test_weights_of_task_vectors_may_cancel_for_there_a_sum_of_zero_counts_as_one(method, weight):
    merge = Merge(method=method, base="base", params={"weight": weight, "normalize": True})
    resolved = resolve(recipe(merge=merge), FAMILY)
    assert resolved.layers[0].groups[0].params["normalize"] is True


@pytest.mark.parametrize("pair", [(0.0, 0.0), (1.0, -1.0), (3e-9, -3e-9), (1.0, -1.0 + 1e-9)])
def test_weights_of_an_average_cancel_where_little_is_left_of_their_sizes(pair):
    merge = Merge(method="linear", sources=("a", "b"), params={"weight": dict(zip("ab", pair, strict=True))})
    with pytest.raises(RecipeError, match="must not sum to 0 under normalize"):
        resolve(recipe(merge=merge), FAMILY)


@pytest.mark.parametrize("pair", [(1e-14, 1e-14), (1.0, -0.999), (0.0, 1e-20)])
def test_small_weights_of_an_average_do_not_cancel(pair):
    merge = Merge(method="linear", sources=("a", "b"), params={"weight": dict(zip("ab", pair, strict=True))})
    assert resolve(recipe(merge=merge), FAMILY).layers


def test_weights_that_cancel_are_refused_wherever_they_would_be_divided_by_their_sum():
    cancelling = {"weight": {"a": 1.0, "b": -1.0}}
    merge = Merge(method="multislerp", sources=("a", "b"), params=cancelling)
    with pytest.raises(RecipeError, match="must not sum to 0 under normalize_weights"):
        resolve(recipe(merge=merge), FAMILY)
    raw = Merge(method="multislerp", sources=("a", "b"), params={**cancelling, "normalize_weights": False})
    assert resolve(recipe(merge=raw), FAMILY).layers


def test_a_merge_names_a_base_only_where_its_method_takes_one_and_only_one_there_is():
    with pytest.raises(RecipeError, match="'linear' takes no base, but got 'base': leave it out, or list it"):
        resolve(recipe(merge=Merge(method="linear", base="base")), FAMILY)
    for method in ("linear", "ties"):
        with pytest.raises(UnknownModelError, match="bsae"):
            resolve(recipe(merge=Merge(method=method, base="bsae", sources=("a", "b"))), FAMILY)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"weight": {"a": 1, "b": 1, "typo": 7}}, "'typo'"),
        ({"weight": {"a": 1, "b": 1, "base": 1}}, "'base'"),
        ({"weight": [{"filter": "mlp", "value": {"a": 1, "b": 1, "c": 1}}, {"value": 1}]}, "'c'"),
        ({"density": [{"filter": "nowhere", "value": 99}, {"value": 0.5}]}, "99"),
        ({"density": [0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 7.0, 0.2, 0.2]}, "7.0"),
        ({"density": {"groups": [0.1, 0.1, 0.1, 0.1, 0.1, 3.0]}}, "3.0"),
        ({"density": {"a": 0.5, "b": [0.5, {"x": 1}]}}, "must be a number, a gradient"),
        ({"elect": ["weighted", "mistyped", "weighted", "weighted", "weighted", "weighted"]}, "mistyped"),
        ({"normalize": {"a": True, "b": True}}, "one value for all sources"),
        ({"density": [{"filter": 1, "value": 0.5}, {"value": 0.5}]}, "write text"),
        ({"density": [{"filter": ["mlp"], "value": 0.5}, {"value": 0.5}]}, "write text"),
        ({"density": [{"filter": "", "value": 0.5}, {"filter": "mlp", "valeu": 0.5}]}, "valeu"),
        ({"scale": [{"filter": "nowhere", "value": "big"}]}, "big"),
    ],
)
def test_a_wrong_value_is_refused_whether_or_not_a_tensor_reads_it(params, says):
    with pytest.raises(RecipeError, match=says):
        resolve(ties(**params), FAMILY)


def test_filters_may_be_text_a_star_or_nothing():
    for wanted in ("mlp", "*", None):
        assert resolve(ties(density=[{"filter": wanted, "value": 0.5}, {"value": 0.5}]), FAMILY).layers


def test_a_base_that_is_listed_is_said_not_to_count_among_the_sources():
    with pytest.raises(RecipeError, match=r"got 1 of \['base', 'a'\], for the base 'base' is not counted"):
        resolve(recipe(merge=Merge(method="model_stock", base="base", sources=("base", "a"))), FAMILY)
