from __future__ import annotations

import pytest
import torch

from core.errors import CheckpointError, MissingCheckpointError, ParentsDoNotFitError
from core.recipe import Recipe, Source
from merging.plan import Leaf, TensorPlan, plan


def headers(family):
    return {model.weights_digest: model.header for model in family.models.values()}


def by_name(plans):
    return {planned.name: planned for planned in plans}


def test_a_plan_has_every_tensor_of_the_output_once_and_in_order(family):
    plans = plan(family.stack("a", (1, 0, 1)), headers(family))
    names = [planned.name for planned in plans]
    assert len(set(names)) == len(names)
    assert names[0] == "model.embed_tokens.weight"
    assert {"model.norm.weight", "lm_head.weight"} == set(names[-2:])
    layers = [int(name.split(".")[2]) for name in names if ".layers." in name]
    assert layers == sorted(layers)
    assert set(layers) == {0, 1, 2}


def test_a_plan_reads_no_tensor_and_holds_the_values_of_its_own_tensor(family):
    recipe = family.merge(
        "ties", weight={"a": [0.0, 0.9], "b": 0.5, "c": 0.1}, density=[{"filter": "mlp", "value": 0.2}, {"value": 0.7}]
    )
    planned = by_name(plan(recipe, headers(family)))["model.layers.3.mlp.up_proj.weight"]
    assert planned.shape == (48, 32)
    assert [values.get("weight") for values in planned.source_params] == [0.9, 0.5, 0.1, None]
    assert [values.get("density") for values in planned.source_params] == [0.2, 0.2, 0.2, None]
    assert planned.base == 3
    digest = family.models["a"].weights_digest
    assert planned.sources[0] == Leaf(digest, "model.layers.3.mlp.up_proj.weight", torch.float32)


@pytest.mark.parametrize(("dtype", "shared"), [("float32", True), ("bfloat16", False)])
def test_only_an_untouched_tensor_in_its_own_dtype_is_the_parents(family, dtype, shared):
    for planned in plan(family.stack("a", (0, 1), dtype), headers(family)):
        assert planned.copies
        assert (planned.shared is not None) == shared
    scaled = family.recipe(
        slices=({"sources": [{"source": "a", "layers": [0]}], "params": {"scale": 1.5}},), save_dtype="float32"
    )
    assert not any(planned.copies for planned in plan(scaled, headers(family)))


def test_equal_layer_keys_mean_equal_tensor_keys_wherever_the_layer_stands(family):
    part = {
        "sources": [{"source": s, "layers": [2, 0, 2, 2]} for s in ("a", "b", "base")],
        "method": "dare_ties",
        "base": "base",
        "params": {"density": 0.5},
    }
    recipe = family.recipe(slices=(part,), save_dtype="float32", seed=4)
    plans = by_name(plan(recipe, headers(family)))
    layer_keys = recipe.layer_keys()
    assert layer_keys[0] == layer_keys[2] == layer_keys[3] != layer_keys[1]

    def keys(layer):
        return [p.key for name, p in plans.items() if name.startswith(f"model.layers.{layer}.")]

    assert keys(0) == keys(2) == keys(3)
    assert not set(keys(0)) & set(keys(1))


def test_every_value_that_changes_the_bytes_changes_the_key(family):
    def key(**changes):
        options = {"density": 0.5, "seed": 1, "weight": 0.5, "rescale": "none", "lambda": 1.0, "scale": 1.0, **changes}
        recipe = family.merge("dare_ties", options.pop("sources", ("a", "b")), **options)
        return by_name(plan(recipe, headers(family)))["model.layers.1.mlp.up_proj.weight"].key

    changes = [
        {},
        {"density": 0.6},
        {"seed": 2},
        {"weight": 0.6},
        {"rescale": "l1"},
        {"lambda": 1.1},
        {"scale": 1.1},
        {"save_dtype": "bfloat16"},
        {"sources": ("b", "a")},
        {"sources": ("a", "c")},
    ]
    assert len({key(**change) for change in changes}) == len(changes)
    assert key() == key()


def test_a_seed_does_not_change_the_keys_of_a_method_that_draws_nothing(family):
    one, two = ([p.key for p in plan(family.merge("ties", density=0.5, seed=seed), headers(family))] for seed in (1, 2))
    assert one == two


def test_a_nested_recipe_is_a_nested_plan_rounded_to_its_own_dtype(family):
    inner = Recipe(
        sources=(Source(name="a", model="a"), Source(name="b", model="b")),
        merge={"method": "linear"},
        save_dtype="float16",
    )
    outer = family.recipe(
        sources=(Source(name="i", recipe=inner), "c"), merge={"method": "linear"}, save_dtype="float32"
    )
    for planned in plan(outer, headers(family)):
        nested, leaf = planned.sources
        assert isinstance(nested, TensorPlan)
        assert nested.dtype == torch.float16
        assert isinstance(leaf, Leaf)


def test_a_model_without_header_is_named(family):
    with pytest.raises(MissingCheckpointError, match=family.models["a"].weights_digest):
        plan(family.stack("a", (0, 1)), {})


def test_a_recipe_of_another_method_version_is_refused(family):
    recipe = family.merge("linear")
    entry = recipe.embed.evolve(version=99)
    with pytest.raises(CheckpointError, match="version 99"):
        plan(recipe.evolve(embed=entry), headers(family))


def test_headers_that_no_longer_fit_are_refused_by_the_name_of_the_tensor(family):
    recipe = family.merge("linear")
    model = family.models["b"]
    changed = [t.evolve(shape=(1, *t.shape)) if t.name == "model.norm.weight" else t for t in model.header.tensors]
    gone = [t for t in model.header.tensors if t.name != "lm_head.weight"]
    for tensors, name in ((changed, "model.norm.weight"), (gone, "lm_head.weight")):
        broken = {**headers(family), model.weights_digest: model.header.evolve(tensors=tuple(tensors))}
        with pytest.raises(ParentsDoNotFitError) as caught:
            plan(recipe, broken)
        assert caught.value.where == name
