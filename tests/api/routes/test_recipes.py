from __future__ import annotations

import httpx
import pytest

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
