import math

import pytest
import torch

from merging.generation.scaling import IQR, Scaling, frozen, scaling_of


def test_the_constants_are_the_median_and_the_scaled_interquartile_range():
    values = torch.arange(1.0, 10.0).flip(0)
    assert scaling_of(values) == Scaling(5.0, pytest.approx(4.0 / IQR, rel=1e-6))


def test_the_interquartile_range_of_normal_values_is_their_standard_deviation():
    values = torch.empty(100_000).normal_(3.0, 0.5, generator=torch.Generator().manual_seed(2))
    found = scaling_of(values)
    assert found.centre == pytest.approx(3.0, abs=0.01)
    assert found.spread == pytest.approx(0.5, rel=0.02)


def test_an_outlier_moves_neither_constant_much_and_is_compressed():
    values = torch.linspace(0.9, 1.1, 1001)
    before = scaling_of(values)
    values[500] = 1e4
    after = scaling_of(values)
    assert after.spread == pytest.approx(before.spread, rel=0.01)
    assert float(after.apply(values)[500]) == pytest.approx(math.log1p(9999.0 / after.spread), rel=1e-4)


def test_scaling_is_undone():
    values = torch.cat([torch.linspace(-3, 5, 999), torch.tensor([400.0])])
    found = scaling_of(values)
    torch.testing.assert_close(found.undo(found.apply(values)), values, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("values", [torch.ones(64), torch.zeros(64), torch.cat([torch.ones(63), torch.tensor([3.0])])])
def test_values_without_spread_are_scaled_by_something_finite(values):
    found = scaling_of(values)
    assert found.spread > 0.0
    assert torch.isfinite(found.apply(values)).all()


def test_the_furthest_values_are_frozen():
    values = torch.zeros(2000)
    values[[3, 700, 1500]] = torch.tensor([5.0, -9.0, 6.0])
    assert frozen(values, Scaling(0.0, 1.0), 0.001).tolist() == [700, 1500]
    assert frozen(values[:900], Scaling(0.0, 1.0), 0.001).tolist() == []
