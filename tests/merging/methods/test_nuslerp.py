from __future__ import annotations

import math

import numpy as np
import pytest


def slerp(a, b, t, axis=None):
    """Shoemake's equation in float64, over the whole tensor or along an axis."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    total = lambda x: x.sum(axis=axis, keepdims=True)  # noqa: E731
    theta = np.arccos(total(a * b) / np.sqrt(total(a * a) * total(b * b)))
    return (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.sin(theta)


def weights(first, second):
    return [{"weight": first}, {"weight": second}]


ROWS = {"nuslerp_flatten": False}
COLUMNS = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
AXES = pytest.mark.parametrize(("params", "axis"), [({}, None), (ROWS, -1), (COLUMNS, 0)])


@AXES
@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.9, 0.3), (1.5, -0.5), (0.0, 2.0)])
def test_it_follows_the_sphere_as_far_as_the_second_weight_s_share(merge, arrays, params, axis, first, second):
    out = merge("nuslerp", arrays[:2], params=params, sources=weights(first, second)).numpy()
    np.testing.assert_allclose(out, slerp(*arrays[:2], second / (first + second), axis), rtol=0, atol=2e-6)


@AXES
def test_on_a_base_the_task_vectors_follow_the_sphere(merge, arrays, params, axis):
    a, b, _, base = arrays
    out = merge("nuslerp", [a, b], base=base, params=params, sources=weights(0.5, 1.0)).numpy()
    expected = base.astype(np.float64) + slerp(a - base, b - base, 2 / 3, axis)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def test_rows_and_columns_worked_by_hand(merge):
    a, b = np.float32([[1, 0], [3, 3]]), np.float32([[0, 1], [3, 3]])
    half = math.sqrt(0.5)
    by_rows = merge("nuslerp", [a, b], params=ROWS)
    np.testing.assert_allclose(by_rows, [[half, half], [3, 3]], rtol=1e-6)
    # Every column pairs (1, 3) with (0, 3): both halves of the same angle.
    cos = 9 / math.sqrt(90)
    factor = math.sin(math.acos(cos) / 2) / math.sin(math.acos(cos))
    by_columns = merge("nuslerp", [a, b], params=COLUMNS)
    np.testing.assert_allclose(by_columns, [[factor, factor], [6 * factor, 6 * factor]], rtol=1e-6)


@pytest.mark.parametrize("params", [{}, ROWS, COLUMNS])
def test_a_vector_is_one_row_and_one_column(merge, params):
    out = merge("nuslerp", [np.float32([2, 0]), np.float32([0, 2])], params=params)
    assert out.tolist() == pytest.approx([math.sqrt(2)] * 2, rel=1e-6)


@pytest.mark.parametrize("params", [ROWS, COLUMNS])
def test_a_tensor_of_three_dimensions_has_rows_and_columns(merge, params):
    a, b = (np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32) for seed in (1, 2))
    out = merge("nuslerp", [a, b], params=params).numpy()
    np.testing.assert_allclose(out, slerp(a, b, 0.5, axis=0 if params is COLUMNS else -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("params", [{}, ROWS])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ([0.0, 0.0], [2.0, 4.0]),
        ([2.0, 4.0], [0.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, 2.0], [3.0, 6.0]),
        ([1.0, 2.0], [-1.0, -2.0]),
        ([1.0, 2.0], [-1.0, -2.001]),
    ],
    ids=["zero first", "zero second", "both zero", "parallel", "antipodal", "nearly antipodal"],
)
def test_where_the_sphere_says_nothing_the_line_is_taken(merge, params, left, right):
    a, b = np.float32([left]), np.float32([right])
    out = merge("nuslerp", [a, b], params=params, sources=weights(3.0, 1.0)).numpy()
    np.testing.assert_allclose(out, np.float32(0.75) * a + np.float32(0.25) * b, rtol=1e-6)


def test_only_the_rows_without_a_direction_take_the_line(merge):
    a, b = np.float32([[0, 0], [1, 0]]), np.float32([[4, 0], [0, 1]])
    out = merge("nuslerp", [a, b], params=ROWS, sources=weights(3.0, 1.0)).numpy()
    assert out[0].tolist() == [1.0, 0.0]
    np.testing.assert_allclose(out[1], [math.cos(math.pi / 8), math.sin(math.pi / 8)], rtol=1e-6)


@pytest.mark.parametrize("params", [{}, ROWS])
def test_tiny_tensors_keep_their_angle(merge, params):
    out = merge("nuslerp", [np.float32([1e-15, 0]), np.float32([0, 1e-15])], params=params)
    assert out.tolist() == pytest.approx([math.sqrt(0.5) * 1e-15] * 2, rel=1e-6)


def test_weights_that_cancel_count_as_equal(merge):
    a, b = np.float32([1, 0]), np.float32([0, 1])
    assert merge("nuslerp", [a, b], sources=weights(1.0, -1.0)).tolist() == merge("nuslerp", [a, b]).tolist()


@pytest.mark.parametrize("params", [{}, ROWS, COLUMNS])
def test_a_weight_of_zero_gives_the_other_model_byte_for_byte(merge, arrays, params):
    out = merge("nuslerp", arrays[:2], params=params, sources=weights(0.7, 0.0)).numpy()
    assert np.array_equal(out, arrays[0])
