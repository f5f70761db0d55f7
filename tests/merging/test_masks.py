from __future__ import annotations

import pytest
import torch

from merging.masks import agreeing, below, chosen, sizes, zero_as_one

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, float("inf"), float("-inf"), 0.5, -2.5]


@pytest.fixture
def values():
    return torch.tensor(SPECIAL)


def test_below_is_a_mask_of_all_ones():
    left = torch.tensor([-5, 0, 3, 4, 5, 2**30], dtype=torch.int32)
    assert below(left, 4).tolist() == [-1, -1, -1, 0, 0, 0]
    assert below(left, torch.tensor(5, dtype=torch.int32)).tolist() == [-1, -1, -1, -1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_chosen_stays_and_the_rest_is_zero(dtype):
    values = torch.tensor([1.5, -2.0, -0.0, 2.0**127], dtype=dtype)
    mask = torch.tensor([-1, 0, -1, -1], dtype=torch.int32)
    out = chosen(values, mask)
    assert out.dtype == dtype
    assert out.tolist() == [1.5, 0.0, 0.0, 2.0**127]
    assert values.tolist() == [1.5, -2.0, -0.0, 2.0**127]


def test_what_is_chosen_carries_derivatives():
    values = torch.tensor([1.5, -2.0, 4.0], requires_grad=True)
    chosen(values, torch.tensor([-1, 0, -1], dtype=torch.int32)).sum().backward()
    assert values.grad.tolist() == [1.0, 0.0, 1.0]


def test_sizes_are_ordered_as_magnitudes_are(values):
    found = sizes(values)
    assert found.dtype == torch.int32
    magnitudes = values.abs()
    assert torch.equal(found[:, None] < found, magnitudes[:, None] < magnitudes)
    assert torch.equal(found[:, None] == found, magnitudes[:, None] == magnitudes)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vote_agrees_with_a_total_of_its_sign_and_zeros_never_do_where_that_matters(dtype, zeros):
    one, other = torch.tensor(SPECIAL, dtype=dtype), torch.tensor([0.0, 2.0, -2.0, 1e-45, -1e-45], dtype=dtype)
    votes, totals = (each.contiguous() for each in torch.cartesian_prod(one, other).T)
    expected = torch.where(totals >= 0, votes > 0, votes < 0)
    found = agreeing(votes, totals, zeros=zeros) == -1
    matters = (votes != 0) | (not zeros)
    assert torch.equal(found[matters], expected[matters])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_zeros_become_one(dtype):
    values = torch.tensor(SPECIAL, dtype=torch.float32).to(dtype)
    expected = torch.where(values == 0, 1.0, values.double()).to(dtype)
    assert torch.equal(zero_as_one(values.clone()), expected)


def test_divisors_keep_their_derivatives():
    weight = torch.tensor(3.0, requires_grad=True)
    (6.0 / zero_as_one(torch.tensor([1.0, 0.0]) * weight)).sum().backward()
    assert weight.grad.item() == pytest.approx(-6 / 9)
