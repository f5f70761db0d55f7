"""Trimming over the whole model, against one sort of everything that a source changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging import magnitudes
from merging.compute import compute
from merging.plan import plan
from merging.statistics import Statistics

SOURCES = ("a", "b", "c")


def plans(family, **params):
    headers = {model.weights_digest: model.header for model in family.models.values()}
    return plan(family.merge("ties", trim_scope="model", **params), headers)


def built(family, statistics, **params):
    parents = family.parents()
    return {p.name: compute(p, parents, statistics=statistics).numpy() for p in plans(family, **params)}


def wide(family, model):
    return {name: tensor.float().numpy() for name, tensor in family.tensors(model).items()}


def trimmed(family, source, density):
    """The task vector of every tensor, trimmed by one stable sort over all tensors in the order of the plan."""
    base, model = wide(family, "base"), wide(family, source)
    names = [p.name for p in plans(family)]
    deltas = [model[name] - base[name] for name in names]
    flat = np.concatenate([delta.ravel() for delta in deltas])
    count = max(1, int(density * flat.size)) if density > 0 else 0
    keep = np.argsort(-np.abs(flat), kind="stable")[:count]
    out = np.zeros_like(flat)
    out[keep] = flat[keep]
    ends = np.cumsum([delta.size for delta in deltas])
    parts = np.split(out, ends[:-1])
    return {name: part.reshape(delta.shape) for name, part, delta in zip(names, parts, deltas, strict=True)}


def expected(family, densities):
    base = wide(family, "base")
    parts = [trimmed(family, source, density) for source, density in zip(SOURCES, densities, strict=True)]
    found = {}
    for name in parts[0]:
        deltas = [part[name] for part in parts]
        sign = np.where(deltas[0] + deltas[1] + deltas[2] >= 0, 1, -1)
        agree = [np.sign(delta) == sign for delta in deltas]
        count = np.maximum(sum(a.astype(np.float32) for a in agree), 1)
        merged = sum(np.where(a, d, np.float32(0)) for a, d in zip(agree, deltas, strict=True))
        found[name] = base[name] + merged / count
    return found


@pytest.mark.parametrize("room", [0, 1 << 30])
@pytest.mark.parametrize("densities", [(0.2, 0.5, 0.9), (0.0, 1.0, 1e-9)])
def test_every_source_keeps_its_largest_changes_of_the_whole_model(family, monkeypatch, densities, room):
    monkeypatch.setattr(magnitudes, "SMALL", 0)
    density = dict(zip(SOURCES, densities, strict=True))
    ours, theirs = built(family, Statistics(room), density=density), expected(family, densities)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)


@pytest.mark.parametrize("room", [0, 1 << 30])
def test_where_many_changes_are_of_one_size_exactly_k_are_kept(half_family, monkeypatch, room):
    monkeypatch.setattr(magnitudes, "SMALL", 0)
    out = built(half_family, Statistics(room), density=0.3)
    theirs = expected(half_family, (0.3,) * 3)
    for name, tensor in theirs.items():
        assert np.array_equal(out[name], tensor), name


def test_one_tensor_may_lose_all_while_another_keeps_all(family, rewrite):
    def change(tensors):
        for name, tensor in tensors.items():
            if name.startswith("model.layers.1."):
                tensor.mul_(2.0)

    folder = rewrite(family.folder / "base", change, name="loud")
    loud = type(family)(folder.parent, ())
    (folder.parent / "base").symlink_to(family.folder / "base")
    loud.models = {name: loud.register(folder.parent / name) for name in ("base", "loud")}
    headers = {m.weights_digest: m.header for m in loud.models.values()}
    found = plan(loud.merge("ties", ("loud",), trim_scope="model", density=1e-4), headers)
    parents = loud.parents()
    moved = {p.name for p in found if not torch.equal(compute(p, parents), parents.tensor(found_base(p), p.name))}
    assert moved
    assert all(name.startswith("model.layers.1.") for name in moved)


def found_base(planned):
    return planned.sources[planned.base].digest


def test_a_density_of_its_own_is_a_share_of_the_same_whole(family):
    density = [{"filter": "mlp", "value": 0.9}, {"value": 0.1}]
    mixed = built(family, Statistics(), density=density)
    low, high = (built(family, Statistics(), density=value) for value in (0.1, 0.9))
    for name, tensor in mixed.items():
        assert np.array_equal(tensor, (high if "mlp" in name else low)[name]), name


def test_the_keys_of_tensors_and_layers_know_of_the_rest_of_the_model(family):
    def keys(layers, scope):
        part = {
            "sources": [{"source": s, "layers": layers} for s in ("a", "base")],
            "method": "ties",
            "base": "base",
            "params": {"density": 0.5, "trim_scope": scope},
        }
        recipe = family.recipe(slices=(part,), save_dtype="float32")
        headers = {model.weights_digest: model.header for model in family.models.values()}
        planned = {p.name: p.key for p in plan(recipe, headers)}
        return recipe.layer_keys()[0], planned["model.layers.0.mlp.up_proj.weight"]

    assert keys([0, 1], "tensor") == keys([0, 2], "tensor")
    for one, other in zip(keys([0, 1], "model"), keys([0, 2], "model"), strict=True):
        assert one != other


def test_what_a_recipe_does_not_name_is_implied_and_leaves_its_digest_alone(family):
    plain, named = (family.merge("ties", density=0.5, **more) for more in ({}, {"trim_scope": "tensor"}))
    whole = family.merge("ties", density=0.5, trim_scope="model")
    assert plain.digest() == named.digest() != whole.digest()
    # Its layer keys hold a digest of the whole, which is kept; a recipe made of it is another one.
    assert whole.layer_keys() != plain.layer_keys()
    assert whole.evolve(seed=9).whole_digest != whole.whole_digest
    assert "trim_scope" not in plain.layers[0].groups[0].params
    headers = {model.weights_digest: model.header for model in family.models.values()}
    assert {p.params["trim_scope"] for p in plan(plain, headers)} == {"tensor"}
