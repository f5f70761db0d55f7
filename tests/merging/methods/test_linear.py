from __future__ import annotations

import numpy as np
import pytest
import torch

WEIGHTS = (0.3, 0.9, 0.25)


def expected(arrays, weights, normalize):
    total = np.zeros_like(arrays[0])
    for array, weight in zip(arrays, weights, strict=True):
        total = total + np.float32(weight) * array
    return total / np.float32(sum(weights)) if normalize else total


@pytest.mark.parametrize("normalize", [True, False])
def test_it_is_the_weighted_average_to_the_last_bit(merge, arrays, normalize):
    out = merge("linear", arrays[:3], sources=[{"weight": w} for w in WEIGHTS], params={"normalize": normalize})
    assert np.array_equal(out.numpy(), expected(arrays[:3], WEIGHTS, normalize))


def test_a_case_worked_by_hand(merge):
    arrays = [np.float32([1, 2, -4]), np.float32([3, 0, 8])]
    weights = [{"weight": 1.0}, {"weight": 3.0}]
    assert merge("linear", arrays, sources=weights).tolist() == [2.5, 0.5, 5.0]
    assert merge("linear", arrays, sources=weights, params={"normalize": False}).tolist() == [10.0, 2.0, 20.0]


def test_bfloat16_is_rounded_once_at_the_end(merge, arrays):
    halves = [torch.tensor(a).bfloat16() for a in arrays[:3]]
    out = merge("linear", halves, sources=[{"weight": w} for w in WEIGHTS], dtype=torch.bfloat16)
    exact = expected([h.float().numpy() for h in halves], WEIGHTS, True)
    assert torch.equal(out, torch.tensor(exact).bfloat16())


def test_a_negative_weight_extrapolates(merge):
    out = merge("linear", [np.float32([1.0]), np.float32([3.0])], sources=[{"weight": 2.0}, {"weight": -1.0}])
    assert out.tolist() == [-1.0]
