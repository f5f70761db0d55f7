from __future__ import annotations

import numpy as np
import pytest
import torch

import merging.rows
from merging.kernels import Inputs
from merging.rows import dots, sums

SHAPES = [(1,), (9,), (1, 1), (1, 9), (9, 1), (64, 3), (65, 3), (200, 33), (3, 2, 5), (2, 70_000)]


def inputs(*arrays, base=None, shape=None):
    return Inputs(
        tensors=tuple(torch.as_tensor(array).reshape(-1) for array in arrays),
        shape=np.asarray(arrays[0]).shape if shape is None else shape,
        name="weight",
        base=base,
        params={},
        source_params=({},) * len(arrays),
        keys=(),
        content=tuple(str(position) for position in range(len(arrays))),
    )


def random(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_every_row_and_column_has_its_inner_product_in_the_shape_of_a_field(shape, axis):
    left, right = random(shape, 1), random(shape, 2)
    along = 0 if axis == "columns" else -1
    expected = (left.astype(np.float64) * right).sum(axis=along, keepdims=True)
    found = dots(inputs(left, right), axis, 0, 1, deltas=False)
    assert found.dtype == torch.float64
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-11)


def test_inner_products_of_task_vectors_are_taken_of_their_float32_differences():
    left, right, base = random((5, 7), 1), random((5, 7), 2), random((5, 7), 3)
    found = dots(inputs(left, right, base, base=2), "rows", 0, 1, deltas=True).numpy()
    expected = ((left - base).astype(np.float64) * (right - base)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_the_sums_do_not_depend_on_how_much_is_summed_at_once(axis, monkeypatch):
    one = inputs(random((130, 250), 1))
    whole = dots(one, axis, 0, 0, deltas=False)
    for at_once in (1, 1 << 10, 1 << 13):
        monkeypatch.setattr(merging.rows, "AT_ONCE", max(at_once, merging.rows.SLICES))
        one = inputs(random((130, 250), 1))
        assert torch.equal(dots(one, axis, 0, 0, deltas=False), whole)


def test_the_order_of_two_sources_does_not_change_a_bit_and_what_is_known_is_not_taken_again():
    both = inputs(random((40, 30), 1), random((40, 30), 2))
    assert dots(both, "rows", 0, 1, deltas=False) is dots(both, "rows", 1, 0, deltas=False)


def test_a_row_is_summed_by_a_halving_tree_worked_by_hand():
    terms = torch.tensor([1e16, 1.0, -1e16, 1.0, 1.0], dtype=torch.float64)
    # Five terms count as eight: (1e16 + 1, 1, -1e16, 1), then (1e16 + 1 - 1e16, 1 + 1), and 1e16 + 1 is 1e16.
    found = sums(inputs(np.zeros(5, np.float32)), "rows", lambda start, stop: terms[start:stop])
    assert found.tolist() == [2.0]


def test_the_last_column_of_a_wide_tensor_and_the_last_of_many_slices_are_counted():
    one = np.zeros((65, 70_000), np.float32)
    one[64, 69_999] = 3.0
    assert dots(inputs(one), "columns", 0, 0, deltas=False)[0, -1] == 9.0
    assert dots(inputs(one), "rows", 0, 0, deltas=False)[-1, 0] == 9.0
