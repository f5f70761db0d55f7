from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from merging.methods.delta_guided import kernel

AXES = {"element": (), "row": -1, "tensor": None}


def oracle(models, base, weights, power, granularity, temperature=0.0, factor=1.0):
    """The equation in float64."""
    deltas = np.stack([m.astype(np.float64) - base for m in models])
    flat = np.abs(deltas)
    if granularity == "row":
        flat = np.sqrt((flat**2).sum(axis=-1, keepdims=True))
    if granularity == "tensor":
        flat = np.sqrt((flat**2).sum(axis=tuple(range(1, flat.ndim)), keepdims=True))
    ratio = flat / flat.max(axis=0)
    pulls = ratio**power if temperature == 0.0 else np.exp(ratio**power / temperature)
    pulls = pulls * np.reshape(weights, (-1,) + (1,) * base.ndim)
    return base + factor * (deltas * pulls / pulls.sum(axis=0)).sum(axis=0)


@pytest.mark.parametrize("granularity", list(AXES))
@pytest.mark.parametrize(("power", "temperature"), [(0.0, 0.0), (1.0, 0.0), (2.5, 0.0), (1.0, 0.1), (2.0, 3.0)])
@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_it_is_its_equation(merge, arrays, granularity, power, temperature, factor):
    *models, base = (array[:300] for array in arrays)
    models = [base + (model - base) * size for model, size in zip(models, (1.0, 0.5, 2.0), strict=True)]
    weights = (1.0, 0.5, 0.25)
    params = {"power": power, "granularity": granularity, "temperature": temperature, "lambda": factor}
    out = merge("delta_guided", models, base=base, params=params, sources=[{"weight": w} for w in weights]).numpy()
    np.testing.assert_allclose(
        out, oracle(models, base, weights, power, granularity, temperature, factor), rtol=0, atol=2e-6
    )


def test_elements_rows_and_tensors_worked_by_hand(merge):
    base = np.zeros((2, 2), np.float32)
    a, b = np.float32([[3, 4], [0, 0]]), np.float32([[0, 4], [0, 12]])

    def out(granularity):
        return merge("delta_guided", [a, b], base=base, params={"granularity": granularity}).tolist()

    assert out("element") == [[3, 4], [0, 12]]
    # Rows of length 5 and 4, then 0 and 12.
    np.testing.assert_allclose(out("row"), [[15 / 9, 20 / 9 + 16 / 9], [0, 12]], rtol=1e-6)
    # Tensors of length 5 and sqrt(160).
    share = 5 / (5 + 160**0.5)
    np.testing.assert_allclose(out("tensor"), [[3 * share, 4], [0, 12 * (1 - share)]], rtol=1e-6)


@pytest.mark.parametrize("granularity", list(AXES))
def test_power_0_is_the_weighted_average_of_task_vectors(merge, arrays, granularity):
    *models, base = arrays
    sources = [{"weight": w} for w in (1.0, 0.5, 0.5)]
    params = {"power": 0.0, "granularity": granularity}
    out = merge("delta_guided", models, base=base, params=params, sources=sources).numpy()
    average = merge("task_arithmetic", models, base=base, params={"normalize": True}, sources=sources).numpy()
    np.testing.assert_allclose(out, average, rtol=0, atol=5e-7)


@pytest.mark.parametrize("granularity", list(AXES))
@pytest.mark.parametrize("values", [{"power": 16.0}, {"temperature": 1e-3}], ids=["power", "temperature"])
def test_at_the_extremes_the_largest_change_is_taken_alone(merge, granularity, values):
    base = np.zeros((3, 4), np.float32)
    small, large = (np.full((3, 4), size, np.float32) for size in (1.0, 5.0))
    out = merge("delta_guided", [small, large], base=base, params={"granularity": granularity, **values}).numpy()
    np.testing.assert_allclose(out, large, rtol=1e-6)


@pytest.mark.parametrize("granularity", list(AXES))
def test_changes_beyond_the_range_of_their_powers_keep_their_shares(merge, granularity):
    base = np.zeros((1, 2), np.float32)
    out = merge(
        "delta_guided",
        [np.float32([[1e-30, 1e-30]]), np.float32([[3e-30, 3e-30]])],
        base=base,
        params={"granularity": granularity, "power": 4.0},
    ).numpy()
    np.testing.assert_allclose(out, (1 + 3 * 81) / 82 * 1e-30, rtol=1e-5)


@pytest.mark.parametrize("granularity", list(AXES))
def test_where_nothing_has_any_weight_the_base_stays(merge, arrays, granularity):
    *models, base = arrays
    out = merge(
        "delta_guided", models, base=base, params={"granularity": granularity}, sources=[{"weight": 0.0}] * 3
    ).numpy()
    assert np.array_equal(out, base)


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_the_shares_of_whole_tensors_are_of_the_hosts_functions_to_the_last_bit(inputs_of, temperature):
    generator = np.random.default_rng(6)
    for power in generator.uniform(0.1, 12.0, size=40):
        models, base = generator.normal(size=(3, 5, 7)).astype(np.float32), np.zeros((5, 7), np.float32)
        values = {"weight": 0.75, "power": float(power), "temperature": temperature, "lambda": 0.9}
        inputs = inputs_of(models, base, granularity="tensor", **values)
        sizes = [math.sqrt(inputs.delta_dot(i, i)) for i in range(3)]
        pulls = [(size / max(sizes)) ** float(power) for size in sizes]
        if temperature:
            pulls = [math.exp((pull - 1.0) / temperature) for pull in pulls]
        pulls = [0.75 * pull for pull in pulls]
        assert kernel(inputs).numbers == tuple(pull / math.fsum(pulls) * 0.9 for pull in pulls)


def test_no_function_of_the_device_is_asked_for_the_shares_of_whole_tensors(merge, arrays, monkeypatch):
    *models, base = arrays

    def refused(*_):
        raise AssertionError("a device's function was used")

    monkeypatch.setattr("merging.methods.delta_guided.powers.power", refused)
    monkeypatch.setattr("merging.methods.delta_guided.powers.exponential", refused)
    values = {"power": 2.5, "temperature": 0.3}
    assert torch.isfinite(merge("delta_guided", models, base=base, params={**values, "granularity": "tensor"})).all()
    with pytest.raises(AssertionError, match="device's function"):
        merge("delta_guided", models, base=base, params={**values, "granularity": "row"})
