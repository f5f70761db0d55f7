from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.errors import CheckpointError, MissingCheckpointError, NonFiniteCheckpointError
from merging.activations import Activations, activations_of
from merging.compute import compute
from merging.plan import plan

NAME = "model.layers.1.mlp.down_proj.weight"


def vectors(columns=48):
    generator = torch.Generator().manual_seed(4)
    return {NAME: torch.rand(columns, generator=generator) * 10 + 0.5}


@pytest.fixture
def saved(tmp_path):
    def save(tensors, name="statistics.safetensors", **metadata):
        save_file(tensors, tmp_path / name, metadata=metadata or None)
        return Activations(tmp_path / name)

    return save


def recipe(family, digest, rule="analytic_rows"):
    merge = {"method": "darex_q", "base": "base", "sources": ["a"], "params": {"density": 0.2, "q_rule": rule}}
    return family.recipe(merge=merge, save_dtype="float32", statistics=digest)


def planned(recipe_, family, name=NAME):
    (found,) = (p for p in plan(recipe_, family.parents().headers) if p.name == name)
    return found


def test_a_digest_names_the_vectors_and_not_the_file(saved):
    one = saved(vectors())
    assert saved(vectors(), "again.safetensors", made="twice").digest == one.digest
    assert saved({**vectors(), "b": torch.ones(3)}, "more.safetensors").digest != one.digest
    assert len(one.digest) == 64


def test_a_weight_takes_its_vector_and_others_take_none(saved, family):
    measured, parents = saved(vectors()), family.parents()
    parents.derive(measured.digest, measured)
    resolved = recipe(family, measured.digest)
    assert torch.equal(activations_of(planned(resolved, family), parents), vectors()[NAME])
    other = planned(resolved, family, "model.layers.0.mlp.down_proj.weight")
    assert activations_of(other, parents) is None


def test_they_change_what_the_method_makes_of_that_weight_and_of_no_other(saved, family):
    measured, parents = saved(vectors()), family.parents()
    parents.derive(measured.digest, measured)
    with_them, without = recipe(family, measured.digest), recipe(family, None)
    pairs = zip(plan(with_them, parents.headers), plan(without, parents.headers), strict=True)
    changed = [p.name for p, q in pairs if not torch.equal(compute(p, parents), compute(q, parents))]
    assert changed == [NAME]


def test_the_values_are_those_of_the_papers_search(saved, family):
    from merging.methods.darex_q import best_q

    measured, parents = saved(vectors()), family.parents()
    parents.derive(measured.digest, measured)
    model, base = (family.tensors(name)[NAME].double() for name in ("a", "base"))
    change = ((model - base).float()).double() * vectors()[NAME].double()
    q = best_q(0.2, change.sum(dim=1), (change**2).sum(dim=1))
    found = compute(planned(recipe(family, measured.digest), family), parents).double()
    kept = found != base
    expected = base + (model - base) / q[:, None]
    assert 0.1 < kept.double().mean() < 0.3
    np.testing.assert_allclose(found[kept], expected[kept], rtol=0, atol=1e-6)


def test_statistics_name_the_recipe_the_layers_and_the_tensors_only_where_a_method_looks_at_them(family):
    one, other = (recipe(family, digit * 64) for digit in "ab")
    assert one.digest() != other.digest() != recipe(family, None).digest()
    assert not set(one.layer_keys()) & set(other.layer_keys())
    assert planned(one, family).key != planned(other, family).key
    merge = {"method": "ties", "base": "base", "sources": ["a"]}
    blind, plain = (family.recipe(merge=merge, statistics=digest) for digest in ("a" * 64, None))
    assert blind == plain


def test_statistics_that_are_not_open_are_asked_for(family):
    needed = planned(recipe(family, "a" * 64), family)
    with pytest.raises(MissingCheckpointError, match=r"activation statistics .aaa.*give their file"):
        compute(needed, family.parents())


def test_a_vector_of_another_length_is_refused(saved, family):
    measured, parents = saved(vectors(columns=47)), family.parents()
    parents.derive(measured.digest, measured)
    with pytest.raises(CheckpointError, match=r"48 columns and 47 numbers"):
        compute(planned(recipe(family, measured.digest), family), parents)


def test_a_vector_with_a_hole_is_refused(saved, family):
    measured, parents = saved({NAME: torch.full((48,), torch.nan)}), family.parents()
    parents.derive(measured.digest, measured)
    with pytest.raises(NonFiniteCheckpointError, match=r"down_proj"):
        compute(planned(recipe(family, measured.digest), family), parents)


def test_a_file_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(MissingCheckpointError, match="check the path"):
        Activations(tmp_path / "nothing.safetensors")


def test_a_negative_magnitude_is_refused(saved, family):
    measured, parents = saved({NAME: -vectors()[NAME]}), family.parents()
    parents.derive(measured.digest, measured)
    with pytest.raises(CheckpointError, match=r"mean magnitudes.*measure absolute values"):
        compute(planned(recipe(family, measured.digest), family), parents)


CONV = "transformer.h.1.mlp.c_fc.weight"


def conv_case(zoo, digest=None, rule="analytic_rows"):
    """A GPT-2 matrix that stands as (32 inputs, 128 outputs): the plan, its parents, and both models' float64 values."""
    family = zoo("gpt2")
    model, base = (family.tensors(name)[CONV].double() for name in ("a", "base"))
    assert model.shape == (32, 128)
    return planned(recipe(family, digest, rule), family, CONV), family.parents(), model, base


@pytest.mark.parametrize("given", [True, False], ids=["statistics", "unit activations"])
def test_where_inputs_come_first_the_output_rows_are_the_columns(saved, zoo, given):
    from merging.methods.darex_q import best_q

    vector = torch.rand(32, generator=torch.Generator().manual_seed(4)) * 10 + 0.5
    measured = saved({CONV: vector})
    needed, parents, model, base = conv_case(zoo, measured.digest if given else None)
    parents.derive(measured.digest, measured)
    change = (model - base).float().double() * (vector.double()[:, None] if given else 1.0)
    q = best_q(0.2, change.sum(dim=0), (change**2).sum(dim=0))
    assert q.unique().numel() > 3
    found = compute(needed, parents).double()
    kept = found != base
    assert 0.1 < kept.double().mean() < 0.3
    np.testing.assert_allclose(found[kept], (base + (model - base) / q[None, :])[kept], rtol=0, atol=1e-6)


def test_where_inputs_come_first_a_number_per_output_is_refused(saved, zoo):
    measured = saved({CONV: torch.ones(128)})
    needed, parents, *_ = conv_case(zoo, measured.digest)
    parents.derive(measured.digest, measured)
    with pytest.raises(CheckpointError, match=r"32 rows and 128 numbers"):
        compute(needed, parents)


def test_only_matrices_in_the_layers_of_a_family_that_says_so_have_their_inputs_first(zoo):
    family = zoo("gpt2")
    plans = {p.name: p.inputs_first for p in plan(recipe(family, None), family.parents().headers)}
    assert {name.split(".")[-2] for name, first in plans.items() if first} == {"c_attn", "c_proj", "c_fc"}
    assert not any(first for name, first in plans.items() if name.endswith(".bias") or "wte" in name or "wpe" in name)
