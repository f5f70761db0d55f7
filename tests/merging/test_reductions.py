from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from merging import reductions
from merging.reductions import TREE, dot, squared_norm

SIZES = [1, 2, 3, 127, TREE - 1, TREE, TREE + 1, 5 * TREE + 17]


def tree_sum(terms: np.ndarray) -> float:
    """The rule, spelt out: blocks of 65,536 padded with zeros, halved until one is left, added in order."""
    total = 0.0
    for start in range(0, len(terms), 65_536):
        block = np.zeros(65_536)
        part = terms[start : start + 65_536]
        block[: len(part)] = part
        while len(block) > 1:
            half = len(block) // 2
            block = block[:half] + block[half:]
        total += float(block[0])
    return total


@pytest.mark.parametrize("size", SIZES)
def test_a_dot_product_is_the_tree_sum_to_the_last_bit(size):
    generator = np.random.default_rng(size)
    left, right = generator.normal(size=(2, size)).astype(np.float32)
    found = dot(torch.from_numpy(left), torch.from_numpy(right))
    assert found == tree_sum(left.astype(np.float64) * right.astype(np.float64))
    assert found == pytest.approx(math.fsum(left.astype(np.float64) * right), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norms_of_every_dtype_are_taken_in_float64(dtype):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=100_001)).to(dtype)
    exact = values.double().numpy()
    assert squared_norm(values) == tree_sum(exact * exact)


def test_worked_by_hand():
    left, right = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([4.0, 0.5, 2.0])
    assert dot(left, right) == -1.0
    assert squared_norm(left) == 14.0
    assert dot(torch.empty(0), torch.empty(0)) == 0.0


def test_small_terms_beside_a_large_one_are_not_lost():
    values = torch.full((TREE,), 1e-4)
    values[0] = 1e4
    total = dot(values, torch.ones(TREE))
    assert total == pytest.approx(1e4 + (TREE - 1) * float(np.float32(1e-4)), rel=1e-15)


def test_neither_threads_nor_the_blocks_summed_side_by_side_change_a_bit(monkeypatch):
    values = torch.from_numpy(np.random.default_rng(3).normal(size=7 * TREE + 5).astype(np.float32))
    once = squared_norm(values)
    for threads, side_by_side in ((1, 1), (2, 3), (2, 16)):
        monkeypatch.setattr(reductions, "SIDE_BY_SIDE", side_by_side)
        torch.set_num_threads(threads)
        try:
            assert squared_norm(values) == once
        finally:
            torch.set_num_threads(1)
