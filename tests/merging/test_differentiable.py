from __future__ import annotations

import math

import pytest
import torch

from core.catalog import catalog
from core.recipe import Recipe, Source, resolve
from merging.compiled import Compiler
from merging.differentiable import SCALE, Coefficient, Followed
from merging.resident import Resident

TOKENS = torch.tensor([[5, 9, 33, 2, 17, 40, 8, 21], [7, 3, 3, 50, 61, 12, 30, 1]])
STEP = 1e-3


def resident(family, **options):
    return Resident(family.parents(), forward_dtype=torch.float64, compiler=Compiler("never"), **options)


def loss_of(model):
    logits = model(TOKENS, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())


def slopes(family, recipe, **options):
    with Followed(resident(family), recipe, dtype=torch.float64, **options) as followed:
        loss_of(followed.model).backward()
        return dict(followed.slopes)


@torch.no_grad()
def value(family, recipe):
    return float(loss_of(resident(family).build(recipe).model))


def along(family, make, at, step=STEP):
    """The derivative of the loss by one number, from the loss on both sides of it."""
    return (value(family, make(at + step)) - value(family, make(at - step))) / (2 * step)


METHODS = {
    "linear": ("weight", {"normalize": False}),
    "task_arithmetic": ("weight", {}),
    # Votes that do not depend on the weights: else the elected signs, which count as fixed, would move.
    "ties": ("weight", {"density": 0.5, "normalize": False, "elect": "unweighted"}),
    "dare_linear": ("weight", {"density": 0.5}),
    "atlas": ("weight", {}),
    "slerp": ("t", {}),
}


def merged(family, method, params, **options):
    sources = ["a", "b"] if method == "slerp" else ["a", "b", "c"]
    merge = {"method": method, "sources": sources, "params": params}
    if method not in ("linear", "slerp"):
        merge["base"] = "base"
    return family.recipe(merge=merge, save_dtype="float32", **options)


@pytest.mark.parametrize("method", METHODS)
def test_the_slope_in_a_value_for_all_tensors_is_the_sum_of_theirs(family, method):
    """Of a real loss of a real model, computed in float64 over weights rounded to float32."""
    param, fixed = METHODS[method]
    assert param in catalog().method(method).smooth

    def make(number):
        own = number if method == "slerp" else {"a": number, "b": 0.3, "c": 0.2}
        return merged(family, method, {**fixed, param: own})

    found = slopes(family, make(0.4))
    source = None if method == "slerp" else position(make(0.4), family, "a")
    total = sum(slope for c, slope in found.items() if c.param == param and c.source == source)
    expected = along(family, make, 0.4)
    assert abs(expected) > 1e-6
    assert total == pytest.approx(expected, rel=2e-3)


def position(recipe, family, name):
    """Position of a model among the resolved recipe's sources."""
    digest = family.models[name].weights_digest
    return [source.weights for source in recipe.sources].index(digest)


def test_every_layer_group_has_the_slopes_of_its_own_tensors(family):
    def make(group):
        def with_value(number):
            groups = [0.4] * 4
            groups[group] = number
            return merged(family, "task_arithmetic", {"weight": {"a": {"groups": groups}, "b": 0.3, "c": 0.2}})

        return with_value

    found = slopes(family, make(2)(0.4))
    first = position(make(2)(0.4), family, "a")
    layer = sum(s for c, s in found.items() if c.source == first and c.tensor.startswith("model.layers.2."))
    assert layer == pytest.approx(along(family, make(2), 0.4), rel=2e-3)


def test_a_layer_that_stands_twice_has_slopes_of_its_own_in_each_place(family):
    def make(early, late):
        slices = [
            {
                "sources": [{"source": name, "layers": [layer]} for name in ("a", "b")],
                "method": "linear",
                "params": {"weight": {"a": weight, "b": 0.5}, "normalize": False},
            }
            for layer, weight in ((0, 0.5), (1, early), (1, late), (3, 0.5))
        ]
        return family.recipe(slices=slices, save_dtype="float32")

    found = slopes(family, make(0.5, 0.5))
    first = position(make(0.5, 0.5), family, "a")
    for place, partial in ((1, lambda w: make(w, 0.5)), (2, lambda w: make(0.5, w))):
        mine = sum(s for c, s in found.items() if c.source == first and c.tensor.startswith(f"model.layers.{place}."))
        assert mine == pytest.approx(along(family, partial, 0.5), rel=2e-3)


def test_the_slope_in_a_scale_is_known_too(family):
    def make(number):
        return merged(family, "linear", {"scale": [{"filter": "mlp.down_proj", "value": number}, {"value": 1.0}]})

    found = slopes(family, make(0.9), wanted=lambda c: c.param == SCALE)
    mine = sum(s for c, s in found.items() if "mlp.down_proj" in c.tensor)
    assert mine == pytest.approx(along(family, make, 0.9), rel=2e-3)
    assert {c.param for c in found} == {SCALE}


def test_a_tied_embedding_gathers_the_slopes_of_both_its_uses(half_family):
    def make(number):
        return merged(half_family, "linear", {"normalize": False, "weight": {"a": number, "b": 0.3, "c": 0.2}})

    recipe = make(0.4)
    found = slopes(half_family, recipe)
    assert Coefficient("model.embed_tokens.weight", "weight", position(recipe, half_family, "a")) in found
    total = sum(s for c, s in found.items() if c.source == position(recipe, half_family, "a"))
    assert total == pytest.approx(along(half_family, make, 0.4), rel=2e-3)


def test_factors_on_parts_of_a_tensor_are_gone_through(family):
    def make(number):
        return family.recipe(
            slices=[
                {
                    "sources": [{"source": name, "layers": [0, 1, 1, 2]} for name in ("a", "b")],
                    "method": "linear",
                    "params": {"weight": {"a": number, "b": 0.5}, "normalize": False},
                }
            ],
            repeated={"attention": 0.5, "output": 0.6},
            save_dtype="float32",
        )

    found = slopes(family, make(0.5))
    total = sum(s for c, s in found.items() if c.source == position(make(0.5), family, "a"))
    assert total == pytest.approx(along(family, make, 0.5), rel=2e-3)


def test_batches_add_up_and_can_be_forgotten(family):
    recipe = merged(family, "linear", {})
    with Followed(resident(family), recipe) as followed:
        loss_of(followed.model).backward()
        once = dict(followed.slopes)
        loss_of(followed.model).backward()
        assert all(math.isclose(followed.slopes[c], 2 * once[c], rel_tol=1e-9, abs_tol=1e-15) for c in once)
        followed.reset()
        assert set(followed.slopes.values()) == {0.0}


def test_no_weight_keeps_its_gradient_and_what_is_not_wanted_gets_none(family):
    recipe = merged(family, "linear", {})
    held = []
    with Followed(resident(family), recipe, wanted=lambda c: c.tensor.startswith("model.layers.3.")) as followed:
        parameters = dict(followed.model.named_parameters())
        wanted = {name for name, parameter in parameters.items() if parameter.requires_grad}
        loss = loss_of(followed.model)
        parameters["model.layers.3.mlp.up_proj.weight"].register_post_accumulate_grad_hook(
            lambda _: held.append(sum(p.grad is not None for p in parameters.values()))
        )
        loss.backward()
        assert all(parameter.grad is None for parameter in parameters.values())
    assert held == [0]
    assert wanted == {name for name in parameters if name.startswith("model.layers.3.")}
    assert not any(parameter.requires_grad for parameter in parameters.values())


def test_the_candidate_followed_is_the_candidate_built(family):
    recipe = merged(family, "ties", {"density": 0.4})
    plain = {name: p.clone() for name, p in resident(family).build(recipe).model.named_parameters()}
    with Followed(resident(family), recipe) as followed:
        assert all(torch.equal(p, plain[name]) for name, p in followed.model.named_parameters())


def test_a_recipe_within_a_recipe_is_a_source_like_any_other(family):
    def make(number):
        inner = Recipe(
            sources=[Source(name="a", model="a"), Source(name="b", model="b")],
            merge={"method": "linear", "params": {"weight": 0.5}},
            save_dtype="float32",
        )
        short = Recipe(
            sources=[Source(name="ab", recipe=inner), Source(name="c", model="c")],
            merge={"method": "linear", "params": {"weight": {"ab": number, "c": 0.5}, "normalize": False}},
            save_dtype="float32",
        )
        return resolve(short, family.models)

    found = slopes(family, make(0.5))
    assert sum(s for c, s in found.items() if c.source == 0) == pytest.approx(along(family, make, 0.5), rel=2e-3)
