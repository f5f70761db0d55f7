"""Layers that attend in different ways are not merged, and those of one kind move as before."""

import pytest
from families import model

from core.errors import ParentsDoNotFitError
from core.recipe import Recipe, Source, resolve
from core.recipe.attention import attention_kinds
from core.recipe.output import output_config, stack_kinds

QWEN = {"use_sliding_window": True, "sliding_window": 8}
FULL, SLIDING = "full_attention", "sliding_attention"


def merged(kind, one, other, **form):
    named = {"a": model("a", model_type=kind, config=one), "b": model("b", model_type=kind, config=other)}
    sources = tuple(Source(name=name, model=name) for name in named)
    recipe = resolve(Recipe(sources=sources, save_dtype="float32", **(form or {"merge": {"method": "linear"}})), named)
    return recipe, {m.weights_digest: m.header for m in named.values()}


def slices(*parts):
    return {"slices": tuple({"sources": [{"source": s, "layers": at} for s, at in part.items()]} for part in parts)}


@pytest.mark.parametrize(
    ("kind", "one", "other", "says"),
    [
        ("mistral", {"sliding_window": 4096}, {"sliding_window": None}, "4096 and None"),
        ("mistral", {}, {"sliding_window": 8}, "4096 and 8"),
        ("phi3", {"sliding_window": 8}, {}, "8 and None"),
        ("qwen2", QWEN, QWEN | {"sliding_window": 4096}, "8 and 4096"),
        ("qwen2", QWEN | {"max_window_layers": 1}, QWEN | {"max_window_layers": 3}, "layer 1 is 'sliding_attention'"),
        ("qwen3", QWEN | {"layer_types": [SLIDING] * 4}, QWEN | {"layer_types": [FULL] * 4}, "layer 0 is"),
        ("gemma3_text", {"sliding_window_pattern": 2}, {"sliding_window_pattern": 3}, "layer 1 is 'full_attention'"),
    ],
)
def test_parents_that_attend_differently_are_refused_whichever_comes_first(kind, one, other, says):
    with pytest.raises(ParentsDoNotFitError, match=says) as caught:
        merged(kind, one, other)
    assert "'a'" in caught.value.message and "'b'" in caught.value.message
    with pytest.raises(ParentsDoNotFitError):
        merged(kind, other, one)


def test_a_stack_of_full_and_sliding_mistral_layers_is_refused_for_its_config_has_one_window():
    with pytest.raises(ParentsDoNotFitError, match="sliding_window"):
        merged("mistral", {"sliding_window": 8}, {"sliding_window": None}, **slices({"a": [0, 1]}, {"b": [2, 3]}))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("mistral", {}, {"sliding_window": 4096}),
        ("mistral", {"sliding_window": 64, "max_position_embeddings": 64}, {"sliding_window": None}),
        ("phi3", {"sliding_window": None}, {}),
        ("qwen2", {"sliding_window": 8}, {"sliding_window": None, "layer_types": [FULL] * 4}),
        ("qwen2", QWEN | {"max_window_layers": 4}, QWEN | {"layer_types": [FULL] * 4}),
        ("gemma2", {}, {"layer_types": [SLIDING, FULL] * 2}),
    ],
)
def test_one_attention_said_in_two_ways_fits(kind, one, other):
    recipe, headers = merged(kind, one, other)
    kinds = {attention_kinds(header) for header in headers.values()}
    assert kinds == {stack_kinds(recipe, headers)}


def test_a_window_that_hides_one_position_counts():
    with pytest.raises(ParentsDoNotFitError, match="63 and None"):
        merged("mistral", {"sliding_window": 63, "max_position_embeddings": 64}, {"sliding_window": None})


def test_a_window_that_hides_nothing_still_tells_layers_apart_where_only_some_have_it():
    wide = QWEN | {"sliding_window": 64, "max_position_embeddings": 64, "max_window_layers": 2}
    with pytest.raises(ParentsDoNotFitError, match="64 and None"):
        merged("qwen2", wide, wide | {"sliding_window": None}, **slices({"a": [2, 3]}, {"b": [0, 1]}))


def test_layers_of_one_kind_move_and_merge_with_their_like():
    config = QWEN | {"layer_types": [FULL, SLIDING, FULL, SLIDING]}
    recipe, headers = merged("qwen3", config, config, **slices({"a": [3, 0, 1, 1]}))
    assert output_config(recipe, headers)["layer_types"] == [SLIDING, FULL, SLIDING, SLIDING]
    part = {"sources": [{"source": "a", "layers": [0, 1]}, {"source": "b", "layers": [2, 3]}], "method": "linear"}
    recipe, headers = merged("qwen3", config, config, slices=(part,))
    assert output_config(recipe, headers)["layer_types"] == [FULL, SLIDING]
    part["sources"][1]["layers"] = [1, 2]
    with pytest.raises(ParentsDoNotFitError, match="layer 0 is 'full_attention' in 'a' and 'sliding_attention' in 'b'"):
        merged("qwen3", config, config, slices=(part,))


def test_layers_of_an_inner_recipe_are_compared_where_they_stand_in_it():
    config = QWEN | {"layer_types": [FULL, SLIDING, FULL, SLIDING]}
    a = model("a", model_type="qwen3", config=config)
    inner = Recipe(sources=(Source(name="a", model="a"),), save_dtype="float32", **slices({"a": [1, 0, 3, 2]}))
    sources = (Source(name="inner", recipe=inner), Source(name="a", model="a"))
    part = {"sources": [{"source": "inner", "layers": [0, 1]}, {"source": "a", "layers": [1, 0]}], "method": "linear"}
    recipe = resolve(Recipe(sources=sources, slices=(part,), save_dtype="float32"), {"a": a})
    headers = {a.weights_digest: a.header}
    assert stack_kinds(recipe, headers) == (SLIDING, FULL)
    with pytest.raises(ParentsDoNotFitError, match="attend in one way"):
        resolve(Recipe(sources=sources, merge={"method": "linear"}, save_dtype="float32"), {"a": a})


def test_a_stored_recipe_that_mixes_kinds_has_no_config():
    plain, headers = merged("qwen2", QWEN | {"max_window_layers": 2}, QWEN | {"max_window_layers": 2})
    digest, header = next(iter(headers.items()))
    changed = header.config.replace('"max_window_layers":2', '"max_window_layers":1')
    with pytest.raises(ParentsDoNotFitError, match="layer 1 is"):
        output_config(plain, headers | {digest: header.evolve(config=changed)})
