from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.methods.atlas import MOST
from merging.randomness import hash24, mask_key

SEED = 5


def sources(*values):
    return [
        {"weight": weight, **{f"offset_{k}": o for k, o in enumerate(offsets, start=2)}} for weight, *offsets in values
    ]


def parts_of(position, size, parts):
    """The part of every element, from its draw."""
    drawn = hash24(mask_key(SEED, str(position), "weight"), 0, size, torch.device("cpu")).numpy().astype(np.int64)
    return drawn * parts >> 24


def test_one_part_is_task_arithmetic(merge, arrays):
    *models, base = arrays
    weights = sources((0.5,), (-0.25,), (1.25,))
    one, other = (merge(name, models, base=base, sources=weights) for name in ("atlas", "task_arithmetic"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("parts", [2, 3, MOST])
def test_every_element_takes_the_coefficient_of_its_part(merge, arrays, parts):
    *models, base = arrays
    generator = np.random.default_rng(parts)
    values = generator.integers(-8, 9, size=(3, parts)) / 8
    out = merge("atlas", models, base=base, params={"parts": parts}, sources=sources(*values)).numpy()
    expected = base.astype(np.float64)
    for position, (model, (weight, *offsets)) in enumerate(zip(models, values, strict=True)):
        coefficients = weight + np.array([0.0, *offsets])
        expected = expected + coefficients[parts_of(position, base.size, parts)].reshape(base.shape) * (model - base)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def test_the_parts_are_about_equally_large_and_differ_between_sources():
    first, second = (parts_of(position, 100_000, 5) for position in (0, 1))
    counts = np.bincount(first, minlength=5)
    assert counts.size == 5
    assert np.abs(counts - 20_000).max() < 600
    assert (first == second).mean() == pytest.approx(0.2, abs=0.01)


def test_a_part_of_two_worked_by_hand(merge):
    base, model = np.zeros(6, np.float32), np.ones(6, np.float32)
    out = merge("atlas", [model], base=base, params={"parts": 2}, sources=sources((0.5, 0.25)))
    assert out.tolist() == [[0.5, 0.75][part] for part in parts_of(0, 6, 2)]


def test_offsets_of_parts_that_are_not_there_change_nothing(merge, arrays):
    a, *_, base = arrays
    first, second = sources((0.5, 0.25)), sources((0.5, 0.25, 7.0))
    one, other = (merge("atlas", [a], base=base, params={"parts": 2}, sources=given) for given in (first, second))
    assert torch.equal(one, other)


def test_filters_give_every_tensor_of_a_layer_its_own_coefficient(family):
    weight = {"a": [{"filter": "q_proj", "value": 0.1}, {"filter": "mlp", "value": 0.2}, {"value": 0.3}], "b": 0.0}
    resolved = family.merge("atlas", ("a", "b"), weight=weight)
    found = {t: g.source_params[0]["weight"] for g in resolved.layers[2].groups for t in g.tensors}
    assert found["self_attn.q_proj.weight"] == 0.1
    assert found["mlp.up_proj.weight"] == 0.2
    assert found["self_attn.o_proj.weight"] == 0.3
