"""What single keys become, worked out by hand from mergekit's documentation."""

from __future__ import annotations

import pytest

from core.errors import MergekitError
from core.mergekit import Knowledge, from_mergekit, model_names
from core.recipe.short import Tokenizer


def linear(**changes):
    models = [{"model": "a", "parameters": {"weight": 0.25}}, {"model": "b", "parameters": {"weight": 0.75}}]
    return {"merge_method": "linear", "models": models, "dtype": "float32", **changes}


def ties(*models, **changes):
    given = [{"model": model} for model in ("base", "a", "b")]
    return {
        "merge_method": "ties",
        "models": list(models) or given,
        "base_model": "base",
        "dtype": "float32",
        "parameters": {"weight": 1.0},
        **changes,
    }


def recipe(config, **known):
    return from_mergekit(config, Knowledge(**known)).recipe


def notes(config):
    return " ".join(from_mergekit(config).notes)


def test_models_become_a_merge_in_their_order():
    found = recipe(linear())
    assert [(source.name, source.model) for source in found.sources] == [("a", "a"), ("b", "b")]
    assert found.merge.sources == ("a", "b") and found.merge.params == {"weight": {"a": 0.25, "b": 0.75}}
    assert (found.save_dtype, found.tokenizer, found.seed) == ("float32", "a", 0)


def test_a_base_is_apart_from_the_others_wherever_it_is_listed():
    for models in ([{"model": "a"}, {"model": "base"}, {"model": "b"}], [{"model": "a"}, {"model": "b"}]):
        merge = recipe(ties(*models)).merge
        assert (merge.base, merge.sources) == ("base", ("a", "b"))


def test_a_base_that_the_method_does_not_know_is_merged_like_the_others():
    found = from_mergekit(linear(base_model="c", parameters={"weight": 0.5}))
    assert found.recipe.merge.params == {"weight": {"a": 0.25, "b": 0.75, "c": 0.5}}
    assert found.recipe.merge.base is None and found.recipe.tokenizer == "c"
    assert "merges base_model 'c'" in " ".join(found.notes)


def test_the_base_of_slerp_comes_first():
    config = {
        "merge_method": "slerp",
        "models": [{"model": "a"}, {"model": "b"}],
        "base_model": "b",
        "parameters": {"t": 0.3},
    }
    assert recipe(config).merge.sources == ("b", "a")


def test_a_base_is_optional_where_mergekit_says_so():
    config = {"merge_method": "nuslerp", "models": [{"model": "a"}, {"model": "b"}], "parameters": {"weight": 1.0}}
    assert recipe(config).merge.base is None
    found = recipe({**config, "base_model": "c"}).merge
    assert (found.base, found.sources) == ("c", ("a", "b"))


def test_scopes_are_asked_from_the_source_outwards_and_filters_that_miss_pass_on():
    part = {
        "sources": [
            {"model": "a", "layer_range": [0, 4], "parameters": {"weight": [{"filter": "mlp", "value": 0.1}]}},
            {"model": "b", "layer_range": [2, 6]},
        ],
        "parameters": {"weight": {"filter": "attn", "value": [0.2, 0.3]}},
    }
    module = {"slices": [part], "parameters": {"weight": [{"filter": "norm", "value": 0.4}]}}
    config = {
        "merge_method": "linear",
        "modules": {"default": module},
        "parameters": {"weight": 0.5},
        "dtype": "float32",
    }
    outer = [{"filter": "attn", "value": [0.2, 0.3]}, {"filter": "norm", "value": 0.4}, {"value": 0.5}]
    (made,) = recipe(config).slices
    assert made.params["weight"] == {"a": [{"filter": "mlp", "value": 0.1}, *outer], "b": outer}
    assert [(s.source, s.range) for s in made.sources] == [("a", (0, 4)), ("b", (2, 6))]


def test_nothing_behind_a_catch_all_is_kept():
    for everything in ({"value": 0.5}, {"filter": "*", "value": 0.5}, {"filter": "", "value": 0.5}):
        value = [{"filter": "mlp", "value": 1}, everything, {"filter": "attn", "value": 2}]
        assert recipe(ties(parameters={"weight": value})).merge.params["weight"] == [
            {"filter": "mlp", "value": 1.0},
            {"value": 0.5},
        ]


def test_filters_that_leave_something_out_end_in_mergekits_default():
    found = recipe(ties(parameters={"weight": 1.0, "normalize": [{"filter": "mlp", "value": False}]}))
    assert found.merge.params == {"normalize": [{"filter": "mlp", "value": False}, {"value": True}]}


@pytest.mark.parametrize(
    ("method", "params"),
    [("dare_ties", {"rescale": "l1"}), ("ties", {}), ("breadcrumbs", {}), ("dare_linear", {"rescale": "l1"})],
)
def test_defaults_that_are_not_ours_are_written_out(method, params):
    assert recipe(ties(merge_method=method)).merge.params == params


def test_rescale_is_told_in_our_words():
    value = [{"filter": "mlp", "value": [True, False]}, {"value": "no"}]
    found = recipe(ties(merge_method="dare_ties", parameters={"weight": 1, "rescale": value}))
    assert found.merge.params["rescale"] == [{"filter": "mlp", "value": ["l1", "none"]}, {"value": "none"}]


def test_numbers_are_read_out_of_text_and_truths_out_of_numbers():
    found = recipe(ties(parameters={"weight": "5e-1", "density": "0.25", "normalize": 0}))
    assert found.merge.params == {"weight": 0.5, "density": 0.25, "normalize": False}


@pytest.mark.parametrize(
    ("dtypes", "saved"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16", "out_dtype": "float32"}, "float32"),
        ({"dtype": "float64", "out_dtype": "torch.bfloat16"}, "bfloat16"),
        ({"out_dtype": "float16", "dtype": None}, "float16"),
    ],
)
def test_what_is_saved_is_what_mergekit_saves(dtypes, saved):
    assert recipe(linear(**dtypes)).save_dtype == saved
    assert ("rounded once" in notes(linear(**dtypes))) is (dtypes.get("dtype") is not None)


def test_without_a_dtype_it_is_that_of_the_models():
    config = linear(dtype=None)
    assert recipe(config, dtypes={"a": "float16", "b": "float16"}).save_dtype == "float16"
    assert recipe(config, dtypes={"a": "float16", "b": "bfloat16"}).save_dtype == "float32"
    assert recipe(config).save_dtype == "bfloat16" and "not known" in notes(config)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"tokenizer_source": "base"}, Tokenizer(mode="align", source="base")),
        ({"tokenizer_source": "union"}, Tokenizer(mode="union", source="base")),
        ({"tokenizer_source": "b"}, Tokenizer(mode="align", source="b")),
        ({"tokenizer": {}}, Tokenizer(mode="union", source="base")),
        ({"tokenizer": {"source": "org/other", "pad_to_multiple_of": 64}}, Tokenizer(mode="align", source="other", pad_to_multiple_of=64)),
        ({}, "base"),
    ],
)  # fmt: skip
def test_tokenizers(given, wanted):
    assert recipe(ties(**given)).tokenizer == wanted


def test_models_are_called_by_the_last_part_of_their_path():
    paths = ["org/x", "other/x@main", "./x+lo ra", "groups", "/"]
    config = {"merge_method": "karcher", "models": [{"model": path} for path in paths], "dtype": "float32"}
    found = recipe(config, names={"org/x": "local:x", "lo ra": "local:lora"})
    assert [source.name for source in found.sources] == ["x", "x-2", "x-lo-ra", "model-groups", "model"]
    assert [(s.model, s.adapter) for s in found.sources[:3]] == [
        ("local:x", None),
        ("other/x@main", None),
        ("./x", "local:lora"),
    ]


def test_a_model_may_be_a_mapping():
    mapping = {"model": {"path": "a+b", "revision": "main"}, "lora": {"path": "c"}}
    config = {"merge_method": "passthrough", "models": [{"model": mapping}], "dtype": "float32"}
    (source,) = recipe(config).sources
    assert (source.model, source.adapter) == ("a+b@main", "c")
    assert model_names(config) == ("a+b@main", "c")


def test_one_model_twice_is_two_sources():
    part = {"sources": [{"model": "a", "layer_range": [0, 2]}, {"model": "a", "layer_range": [2, 4]}]}
    config = {"merge_method": "linear", "slices": [part], "parameters": {"weight": 1}, "dtype": "float32"}
    found = recipe(config)
    assert [(s.name, s.model) for s in found.sources] == [("a", "a"), ("a-2", "a")]
    assert [(s.source, s.range) for s in found.slices[0].sources] == [("a", (0, 2)), ("a-2", (2, 4))]
    assert "0.1.5 refuses" in notes(config)


def test_scale_belongs_to_the_one_source():
    part = {
        "sources": [
            {"model": "a", "layer_range": [0, 2], "parameters": {"scale": [{"filter": "layers.1.", "value": 0.5}]}}
        ]
    }
    config = {
        "merge_method": "passthrough",
        "slices": [part, {"sources": [{"model": "a", "layer_range": [1, 2]}], "parameters": {"scale": 0.7}}],
    }
    first, second = recipe(config).slices
    assert first.params == {"scale": {"a": [{"filter": "layers.1.", "value": 0.5}, {"value": 1.0}]}}
    assert second.params == {"scale": 0.7}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (ties(parameters={"weight": 1, "int8_mask": True}), "parameters.int8_mask has no effect on ties"),
        (ties(parameters={"weight": 1, "t": 0.5}), "parameters.t has no effect on ties"),
        (ties({"model": "base", "parameters": {"weight": 2}}, {"model": "a"}), "base: weight has no effect"),
        (ties({"model": "a", "parameters": {"normalize": True}}), "a: normalize has no effect"),
        (
            ties(merge_method="task_arithmetic", parameters={"weight": 1, "density": 0.5}),
            "parameters.density has no effect",
        ),
        (ties(parameters={"weight": [{"filter": "mlp", "value": 1}]}), "no last resort"),
        (linear(), "without base_model"),
        (ties(merge_method="dare_ties"), "seed 0"),
        (ties(tokenizer_source="base"), "mean of the other models' rows"),
    ],
)
def test_what_differs_or_has_no_effect_is_told(config, says):
    assert says in notes(config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (ties(merge_method="tise"), "did you mean 'ties'"),
        (ties(parameters={"weight": 1, "densty": 0.5}), r"'densty', but parameters.densty is 0.5: remove"),
        (ties(parameters={}), "model 'a' must have a value of 'weight'"),
        (ties(base_model=None), "base_model"),
        (ties(basemodel="x"), "'basemodel' .* did you mean 'base_model'"),
        (ties(chat_template="chatml"), "'chatml'"),
        (ties(tokenizer={"tokens": {"<x>": {"source": "a"}}}), "<x>"),
        (ties(tokenizer={"source": "a"}, tokenizer_source="b"), "not both"),
        (ties(slices=[]), None),
        (ties(modules={"default": {"models": [{"model": "a"}]}}), "exactly one of"),
        (linear(models=None, modules={n: {"models": [{"model": "a"}]} for n in ("text", "image")}), "one module"),
        (linear(dtype="float64"), "give an out_dtype"),
        (linear(dtype="int64"), "'int64'"),
        (linear(models=[{"model": "a+b+c"}]), "one adapter"),
        (linear(models=[{"model": "a@b@c"}]), "@revision"),
        (linear(models=[{"model": {"model": "a", "override_architecture": "X"}}]), "override_architecture"),
        (linear(models=[{"model": 3}]), "a model is"),
        (linear(models="a"), "models"),
        (linear(models=[{"model": "a", "parameters": {"weight": "heavy"}}]), "'heavy'"),
        (linear(models=[{"model": "a", "parameters": {"weight": []}}]), "a gradient"),
        (linear(models=[{"model": "a", "parameters": {"weight": [{"filter": "x"}]}}]), "filter, value"),
        (linear(models=[{"model": "a", "parameters": {"weight": [{"filter": 3, "value": 1}]}}]), "filter, value"),
        (linear(models=[{"model": "a", "parameters": {"weight": [[1], 2]}}]), "must be a number"),
        (linear(models=[{"model": "a", "parameters": {"weight": float("nan")}}]), "must be a number"),
        ({"merge_method": "karcher", "models": [{"model": "a"}], "parameters": {"max_iter": 2.5}}, "whole number"),
        (42, "a mapping"),
        ([], "several of them"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_by_name(config, says):
    if says is None:
        from_mergekit(config)
        return
    with pytest.raises(MergekitError, match=says) as caught:
        from_mergekit(config)
    assert caught.value.code == "mergekit_unsupported"


def sliced(*parts, **changes):
    return {"merge_method": "ties", "slices": list(parts), "parameters": {"weight": 1}, "dtype": "float32", **changes}


def part(*models, start=0, stop=2, **more):
    return {"sources": [{"model": model, "layer_range": [start, stop]} for model in models], **more}


def test_a_slice_may_have_a_base_of_its_own():
    found = recipe(sliced(part("a", "b"), part("a", "c", base_model="c"), base_model="a"))
    assert [s.base for s in found.slices] == ["a", "c"] and found.tokenizer == "a"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (sliced(part("a", "b"), base_model="c"), r"'c' is not in slices\.0\.sources"),
        (sliced(part("a", "b", merge_method="linear"), base_model="a"), "one merge_method"),
        (sliced(part("a", "b", start=2, stop=2), base_model="a"), "0 <= start < stop"),
        (sliced({"sources": []}, base_model="a"), "sources"),
        (sliced(part("a", layer=1), base_model="a"), "slices.0.layer"),
    ],
)
def test_slices_that_have_no_meaning_are_refused(config, says):
    with pytest.raises(MergekitError, match=says):
        from_mergekit(config)


def test_a_method_that_a_slice_repeats_changes_nothing():
    config = sliced(part("a", "b", merge_method="ties", residual_weight=0.5), base_model="a")
    assert recipe(config).slices[0].method == "ties" and "residual_weight has no effect" in notes(config)


def stage(name, *models, **more):
    given = {"models": [{"model": model} for model in models], "merge_method": "linear", "parameters": {"weight": 1}}
    return {**given, "dtype": "float32", **({"name": name} if name else {}), **more}


def test_stages_become_recipes_within_recipes_in_whatever_order_they_stand():
    documents = [
        stage(None, "second", "c"),
        stage("second", "first", "b", out_dtype="float16"),
        stage("first", "a", "b"),
    ]
    for config in (documents, {"merges": documents[::-1]}):
        found = recipe(config, seed=3)
        assert [(s.name, s.model) for s in found.sources] == [("second", None), ("c", "c")]
        second = found.sources[0].recipe
        assert second.save_dtype == "float16" and second.sources[0].recipe.merge.sources == ("a", "b")
        assert model_names(config) == tuple(dict.fromkeys(name for name in model_names(config)))
        assert set(model_names(config)) == {"a", "b", "c"}


def test_the_result_is_the_stage_that_no_other_uses():
    found = recipe([stage("first", "a", "b"), stage("last", "first", "b")])
    assert [s.name for s in found.sources] == ["first", "b"]


def test_a_stage_saves_what_the_next_one_loads():
    documents = [stage("first", "a", "b", dtype="bfloat16"), stage(None, "first", "c", dtype=None)]
    assert recipe(documents, dtypes={"c": "bfloat16"}).save_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ([stage("x", "a"), stage("x", "b")], "several are called 'x'"),
        ([stage(None, "a"), stage(None, "b")], "without a name"),
        ([stage("x", "y"), stage("y", "x")], "one stage must be the result"),
        ([stage(None, "x"), stage("x", "y"), stage("y", "x")], "circle"),
        ([stage(None, "a"), stage("x", "b")], "'x' does not"),
        ([stage("x", "a"), stage("y", "b")], "one stage must be the result"),
        ([stage("x", "a"), stage(None, "x@main")], "no revisions"),
        ([stage("x", "a"), stage(None, "x+lora")], "not on a stage"),
        ([stage("x", "a"), stage(None, "b+x")], "an adapter is no stage"),
        ([stage(f"s{i}", "a") for i in range(33)], "at most 32"),
        ({"merges": [stage(None, "a")], "dtype": "float32"}, "beside 'merges'"),
    ],
)
def test_stages_that_do_not_hang_together_are_refused(documents, says):
    with pytest.raises(MergekitError, match=says):
        from_mergekit(documents)


def test_stages_that_use_each_other_many_times_over_cost_no_time():
    documents = [stage("s0", "a", "b")] + [
        stage(f"s{i}", f"s{i - 1}", f"s{i - 2}" if i > 1 else "b") for i in range(1, 31)
    ]
    with pytest.raises(MergekitError, match="at most"):
        from_mergekit([*documents, stage(None, "s30")])


def test_a_weight_of_the_base_is_dropped_and_told():
    weighed = [{"model": name, "parameters": {"weight": 1.0}} for name in ("base", "a", "b")]
    read = from_mergekit({"merge_method": "ties", "base_model": "base", "models": weighed})
    assert read.recipe.merge.params == {}
    assert "base: weight has no effect on ties in mergekit, nor here." in read.notes
