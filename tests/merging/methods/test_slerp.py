from __future__ import annotations

import math

import numpy as np
import pytest

from merging.methods.slerp import slerp_factors


def expected(left, right, t):
    a, b = left.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    theta = math.acos(a @ b / math.sqrt((a @ a) * (b @ b)))
    first, second = math.sin((1 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
    return (first * a + second * b).reshape(left.shape)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_it_follows_the_sphere(merge, t):
    generator = np.random.default_rng(2)
    left, right = (generator.normal(size=(500, 301)).astype(np.float32) for _ in range(2))
    out = merge("slerp", [left, right], params={"t": t}).numpy()
    np.testing.assert_allclose(out, expected(left, right, t), rtol=1e-6, atol=1e-6)


def test_a_quarter_circle_worked_by_hand(merge):
    out = merge("slerp", [np.float32([1, 0]), np.float32([0, 1])], params={"t": 1 / 3})
    assert out.tolist() == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)], abs=1e-7)


def test_tensors_of_one_length_keep_it(merge):
    generator = np.random.default_rng(4)
    left, right = generator.normal(size=(2, 4000))
    left, right = (v / np.linalg.norm(v) * 3 for v in (left, right))
    out = merge("slerp", [left.astype(np.float32), right.astype(np.float32)], params={"t": 0.37})
    assert np.linalg.norm(out.numpy().astype(np.float64)) == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([0.0, 0.0], [2.0, 4.0]),
        ([2.0, 4.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, 2.0], [3.0, 6.0]),
        ([1.0, 2.0], [-1.0, -2.0]),
        ([1e-30, 0.0], [1e-30, 1e-36]),
    ],
    ids=["zero first", "zero second", "both zero", "parallel", "antipodal", "tiny and parallel"],
)
def test_where_the_sphere_says_nothing_the_line_is_taken(merge, left, right):
    a, b = np.float32(left), np.float32(right)
    out = merge("slerp", [a, b], params={"t": 0.25}).numpy()
    assert np.array_equal(out, np.float32(0.75) * a + np.float32(0.25) * b)


def test_tiny_tensors_that_are_not_parallel_still_follow_the_sphere(merge):
    out = merge("slerp", [np.float32([1e-15, 0]), np.float32([0, 1e-15])], params={"t": 0.5})
    assert out.tolist() == pytest.approx([math.sqrt(0.5) * 1e-15] * 2, rel=1e-6)


def test_the_factors_at_both_ends_are_exactly_one_and_zero():
    assert slerp_factors(0.0, 0.1, 1.0, 1.0) == (1.0, 0.0)
    assert slerp_factors(1.0, 0.1, 1.0, 1.0) == (0.0, 1.0)
