from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.powers import exponential, power

GOLDEN = [1017344942, 1036124927, 1057725272, 1065350364, 117763124]
GOLDEN_EXPONENTIAL = [1058751896, 1028386184, 580697233]


def apart(found, expected):
    """The largest relative difference."""
    return np.abs(found.numpy().astype(np.float64) / expected - 1).max()


def bases():
    generator = np.random.default_rng(0)
    return np.concatenate(
        [
            generator.uniform(0, 1, 20_000),
            2.0 ** -generator.uniform(0, 90, 20_000),
            1 - generator.uniform(0, 1e-3, 2000),
        ]
    ).astype(np.float32)


@pytest.mark.parametrize("exponent", [0.01, 0.5, 1.0, 1.7, 2.0, 3.0, 16.0])
def test_a_power_is_the_true_one_to_single_precision(exponent):
    base = bases()
    expected = base.astype(np.float64) ** np.float64(np.float32(exponent))
    counted = expected > 1e-30
    found = power(torch.from_numpy(base), torch.tensor(exponent))
    assert apart(found[torch.from_numpy(counted)], expected[counted]) < 1e-5
    assert (found[torch.from_numpy(~counted)] <= 1.1e-30).all()


def test_zeros_and_ones_have_exact_powers():
    base = torch.tensor([0.0, 1.0])
    for exponent in (1e-3, 1.0, 2.5, 16.0):
        assert power(base, torch.tensor(exponent)).tolist() == [0.0, 1.0]
    assert power(torch.tensor([0.0, 0.3, 1.0]), torch.tensor(0.0)).tolist() == [1.0, 1.0, 1.0]


def test_an_exponential_is_the_true_one_to_single_precision():
    x = -np.random.default_rng(1).uniform(0, 60, 30_000).astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    assert apart(exponential(torch.from_numpy(x)), expected) < 1e-5
    assert exponential(torch.tensor([0.0, -1e9])).tolist() == pytest.approx([1.0, 0.0], abs=1e-37)


def test_the_last_bits_are_these_on_every_machine():
    base = torch.tensor([0.1, 0.25, 0.7, 0.9999, 1e-20])
    assert power(base, torch.tensor(1.7)).view(torch.int32).tolist() == GOLDEN
    assert exponential(torch.tensor([-0.5, -3.0, -40.0])).view(torch.int32).tolist() == GOLDEN_EXPONENTIAL


def test_derivatives_by_the_exponent_are_those_of_torch():
    exponent = torch.tensor(1.7, requires_grad=True)
    base = torch.tensor([0.3, 0.8, 0.0])
    power(base, exponent).sum().backward()
    expected = sum(b**1.7 * np.log(b) for b in (0.3, 0.8))
    assert exponent.grad.item() == pytest.approx(expected, rel=1e-5)
