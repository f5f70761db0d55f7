from __future__ import annotations

import httpx
import pytest
import yaml

from core.recipe import resolve
from tests.api import seeds


@pytest.fixture
def client(library) -> httpx.Client:
    return library[0]


@pytest.fixture
def known(library):
    with library[1].transaction() as s:
        return {name: seeds.ready_model(s, name) for name in seeds.PARENTS}


def test_every_tensor_is_told_its_value(client: httpx.Client, known):
    recipe = {
        "sources": [{"name": "x", "model": "first"}, {"name": "y", "model": "second"}],
        "merge": {"method": "slerp", "params": {"t": [0.0, 0.7]}},
    }
    answer = client.post("/v1/recipes:resolve", json={"recipe": recipe, "models": {"first": "maths", "second": "code"}})
    assert answer.status_code == 200
    found = answer.json()
    tensors = {tensor["tensor"]: tensor for tensor in found["tensors"]}
    # 8 layers of two tensors, embedding, norm and head.
    assert len(tensors) == 8 * 2 + 3
    # A gradient from 0 to 0.7 over 8 layers rises by 0.1 a layer; outside the stack its first value holds.
    for layer in range(8):
        tensor = tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
        assert tensor["params"]["t"] == pytest.approx(0.1 * layer)
        assert tensor["layer"] == layer
        assert [(s["source"], s["layer"]) for s in tensor["sources"]] == [("x", layer), ("y", layer)]
    assert tensors["lm_head.weight"]["params"]["t"] == 0.0 and tensors["lm_head.weight"]["layer"] is None
    assert found["layers"] == len(found["layer_keys"]) == 8


def test_the_digest_is_that_of_the_resolved_form(client: httpx.Client, known):
    recipe = seeds.ties(0.5)
    found = client.post("/v1/recipes:resolve", json={"recipe": recipe.model_dump(mode="json")}).json()
    assert found["digest"] == resolve(recipe, known).digest()
    base = [s for s in found["tensors"][0]["sources"] if s["base"]]
    assert [s["source"] for s in base] == ["base"] and base[0]["params"] == {}


def test_a_restacked_layer_tells_which_layer_it_came_from(client: httpx.Client, known):
    found = client.post("/v1/recipes:resolve", json={"recipe": seeds.dus("maths", 2).model_dump(mode="json")}).json()
    stack = {
        tensor["layer"]: tensor["sources"][0]["layer"] for tensor in found["tensors"] if tensor["layer"] is not None
    }
    assert [stack[i] for i in range(12)] == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"merge": {"method": "slurp"}}, "unknown_method"),
        ({"merge": {"method": "slerp", "params": {"t": 2}}}, "invalid_recipe"),
        ({"merge": {"method": "linear", "params": {"weight": 0}}}, "invalid_recipe"),
        ({"merge": {"method": "slerp"}, "layout": {"preset": "dus", "source": "maths"}}, "invalid_input"),
        ({"sources": [{"name": "maths", "model": "moths"}], "merge": {"method": "passthrough"}}, "unknown_model"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_recipe_that_cannot_be_resolved_says_why(client: httpx.Client, known, change, code):
    recipe = seeds.slerp(0.5).model_dump(mode="json", exclude_none=True) | change
    answer = client.post("/v1/recipes:resolve", json={"recipe": recipe})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"range": [0, 2_000_000_000]}, "recipe.slices.0.sources.0.range"),
        ({"range": [-1, 4]}, "recipe.slices.0.sources.0.range"),
        ({"layers": [4096]}, "recipe.slices.0.sources.0.layers.0"),
    ],
)
def test_a_slice_beyond_every_limit_is_refused_before_it_is_spelt_out(client: httpx.Client, known, part, where):
    recipe = {"sources": [{"name": "a", "model": "maths"}], "slices": [{"sources": [{"source": "a", **part}]}]}
    answer = client.post("/v1/recipes:resolve", json={"recipe": recipe})
    assert (answer.status_code, answer.json()["code"], answer.json()["where"]) == (422, "invalid_input", where)


def resolved(client: httpx.Client, **body):
    answer = client.post("/v1/recipes:resolve", json=body)
    assert answer.status_code == 200, answer.text
    return {tensor["tensor"]: tensor for tensor in answer.json()["tensors"]}


def weights(tensor):
    return {source["source"]: source["params"].get("weight") for source in tensor["sources"]}


def test_values_per_source_filters_gradients_and_scales_are_told_tensor_by_tensor(client: httpx.Client, known):
    value = {
        "maths": 0.25,
        "code": [{"filter": "mlp", "value": [0.0, 0.7]}, {"filter": "lm_head", "value": 2.0}, {"value": 0.5}],
    }
    params = {"weight": value, "normalize": False, "scale": [{"filter": "layers.3.", "value": 0.5}, {"value": 1.0}]}
    recipe = {
        "sources": [{"name": "maths", "model": "maths"}, {"name": "code", "model": "code"}],
        "merge": {"method": "linear", "params": params},
    }
    tensors = resolved(client, recipe=recipe)
    for layer in range(8):
        mlp, attention = (tensors[f"model.layers.{layer}.{t}.weight"] for t in ("mlp.up_proj", "self_attn.q_proj"))
        assert weights(mlp) == {"maths": 0.25, "code": pytest.approx(0.1 * layer)}
        assert weights(attention) == {"maths": 0.25, "code": 0.5}
        assert mlp["scale"] == attention["scale"] == (0.5 if layer == 3 else 1.0)
    assert weights(tensors["lm_head.weight"]) == {"maths": 0.25, "code": 2.0}
    assert (
        weights(tensors["model.embed_tokens.weight"])
        == weights(tensors["model.norm.weight"])
        == {"maths": 0.25, "code": 0.5}
    )


def test_a_recipe_within_a_recipe_is_one_source_with_layers_of_its_own(client: httpx.Client, known):
    inner = {
        "sources": [{"name": "code", "model": "code"}],
        "layout": {"preset": "dus", "source": "code", "params": {"m": 2}},
    }
    part = {"sources": [{"source": "stack", "range": [5, 7]}, {"source": "maths", "range": [0, 2]}], "method": "slerp"}
    recipe = {"sources": [{"name": "stack", "recipe": inner}, {"name": "maths", "model": "maths"}], "slices": [part]}
    answer = client.post("/v1/recipes:resolve", json={"recipe": recipe}).json()
    layers = {t["layer"]: [(s["source"], s["layer"]) for s in t["sources"]] for t in answer["tensors"]}
    assert layers == {
        None: [("stack", None), ("maths", None)],
        0: [("stack", 5), ("maths", 0)],
        1: [("stack", 6), ("maths", 1)],
    }
    assert len(answer["resolved"]["sources"][0]["recipe"]["layers"]) == 12


MERGEKIT = {
    "models": [
        {"model": "org/base"},
        {"model": "maths", "parameters": {"density": [1.0, 0.3]}},
        {"model": "code", "parameters": {"weight": [{"filter": "mlp", "value": 0.8}]}},
    ],
    "merge_method": "ties",
    "base_model": "org/base",
    "parameters": {"weight": 0.5, "int8_mask": True},
}


def test_a_mergekit_configuration_is_resolved_like_a_recipe(client: httpx.Client, known):
    body = {"mergekit": MERGEKIT, "models": {"org/base": "base"}}
    answer = client.post("/v1/recipes:resolve", json=body).json()
    tensors = {tensor["tensor"]: tensor for tensor in answer["tensors"]}
    up, q = (tensors[f"model.layers.7.{t}.weight"] for t in ("mlp.up_proj", "self_attn.q_proj"))
    assert weights(up) == {"base": None, "maths": 0.5, "code": 0.8} and weights(q)["code"] == 0.5
    assert {s["source"]: s["params"].get("density") for s in up["sources"]} == {"base": None, "maths": 0.3, "code": 1.0}
    # Neither dtype is given, and the models are bfloat16.
    assert answer["recipe"]["save_dtype"] == "bfloat16"
    assert answer["notes"] == ["parameters.int8_mask has no effect on ties in mergekit, nor here."]
    again = client.post("/v1/recipes:resolve", json={"recipe": answer["recipe"], "models": body["models"]}).json()
    assert again["digest"] == answer["digest"]


def test_stages_of_a_mergekit_configuration_stand_in_one_mapping(client: httpx.Client, known):
    first = {
        "name": "first",
        "models": [{"model": "maths"}, {"model": "code"}],
        "merge_method": "linear",
        "parameters": {"weight": 1},
    }
    last = {
        "models": [{"model": "first"}, {"model": "base"}],
        "merge_method": "slerp",
        "base_model": "base",
        "parameters": {"t": 0.2},
    }
    answer = client.post("/v1/recipes:resolve", json={"mergekit": {"merges": [last, first]}}).json()
    assert [source["name"] for source in answer["recipe"]["sources"]] == ["first", "base"]
    assert [s["source"] for s in answer["tensors"][0]["sources"]] == ["base", "first"]


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({}, "invalid_input", "either"),
        ({"mergekit": MERGEKIT, "recipe": seeds.slerp(0.5).model_dump(mode="json")}, "invalid_input", "either"),
        ({"mergekit": {**MERGEKIT, "merge_metod": 1}}, "mergekit_unsupported", "merge_method"),
        ({"mergekit": {**MERGEKIT, "chat_template": "auto"}}, "unknown_model", "org/base"),
        (
            {"mergekit": {**MERGEKIT, "chat_template": "auto"}, "models": {"org/base": "base"}},
            "mergekit_unsupported",
            "auto",
        ),
        (
            {"mergekit": {**MERGEKIT, "parameters": {"densty": 1}}, "models": {"org/base": "base"}},
            "mergekit_unsupported",
            "densty",
        ),
        ({"mergekit": {"merges": []}}, "mergekit_unsupported", "several"),
        (
            {"mergekit": {"models": [[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]}},
            "mergekit_unsupported",
            "levels",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_mergekit_configuration_that_means_nothing_says_why(client: httpx.Client, known, body, code, says):
    answer = client.post("/v1/recipes:resolve", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert says in answer.json()["detail"]


def test_a_recipe_is_said_in_mergekits_words(client: httpx.Client, known):
    recipe = seeds.dus("maths", 2).model_dump(mode="json")
    answer = client.post("/v1/recipes:to-mergekit", json={"recipe": recipe}).json()
    ranges = [part["sources"][0]["layer_range"] for part in answer["config"]["slices"]]
    assert ranges == [[0, 6], [2, 8]] and answer["config"]["merge_method"] == "passthrough"
    assert yaml.safe_load(answer["yaml"]) == answer["config"]
    back = client.post("/v1/recipes:resolve", json={"mergekit": answer["config"]}).json()
    assert back["digest"] == client.post("/v1/recipes:resolve", json={"recipe": recipe}).json()["digest"]


def test_what_mergekit_cannot_be_told_is_listed(client: httpx.Client, known):
    params = {"weight": 1.0, "scale": 0.5}
    recipe = {
        "sources": [{"name": "x", "model": "maths"}, {"name": "y", "model": "maths"}],
        "merge": {"method": "linear", "params": params},
    }
    answer = client.post("/v1/recipes:to-mergekit", json={"recipe": recipe})
    assert (answer.status_code, answer.json()["code"]) == (422, "mergekit_unsupported")
    assert "scale" in answer.json()["detail"] and "'maths' enters more often" in answer.json()["detail"]
    assert len(answer.json()["errors"]) == 2
