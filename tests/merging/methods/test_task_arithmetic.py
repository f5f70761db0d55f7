from __future__ import annotations

import numpy as np
import pytest
import torch

WEIGHTS = (0.3, 1.1, -0.25)


def expected(arrays, weights, factor, normalize):
    *models, base = arrays
    total = np.zeros_like(base)
    for model, weight in zip(models, weights, strict=True):
        total = total + np.float32(weight) * (model - base)
    if normalize:
        total = total / np.float32(sum(weights))
    return base + np.float32(factor) * total


@pytest.mark.parametrize(("factor", "normalize"), [(1.0, False), (0.7, True), (1.3, False)])
def test_it_is_the_base_plus_weighted_deltas_to_the_last_bit(merge, arrays, factor, normalize):
    out = merge(
        "task_arithmetic",
        arrays[:3],
        base=arrays[3],
        sources=[{"weight": w} for w in WEIGHTS],
        params={"lambda": factor, "normalize": normalize},
    )
    assert np.array_equal(out.numpy(), expected(arrays, WEIGHTS, factor, normalize))


def test_a_case_worked_by_hand(merge):
    models, base = [np.float32([2, 4]), np.float32([0, 5])], np.float32([1, 1])
    out = merge("task_arithmetic", models, base=base, sources=[{"weight": 0.5}, {"weight": 2.0}])
    assert out.tolist() == [1 + 0.5 - 2, 1 + 1.5 + 8]


def test_bfloat16_is_rounded_once_at_the_end(merge, arrays):
    halves = [torch.tensor(a).bfloat16() for a in arrays]
    out = merge(
        "task_arithmetic", halves[:3], base=halves[3], sources=[{"weight": w} for w in WEIGHTS], dtype=torch.bfloat16
    )
    exact = expected([h.float().numpy() for h in halves], WEIGHTS, 1.0, False)
    assert torch.equal(out, torch.tensor(exact).bfloat16())


def test_weights_that_sum_to_almost_nothing_are_not_divided_by_it(merge):
    out = merge(
        "task_arithmetic",
        [np.float32([2.0]), np.float32([3.0])],
        base=np.float32([0.0]),
        sources=[{"weight": 1.0}, {"weight": -1.0 + 1e-9}],
        params={"normalize": True},
    )
    assert out.item() == pytest.approx(-1.0)
