from __future__ import annotations

import itertools

import numpy as np
import pytest


def oracle(models, base, axis=None):
    """Equations 4 and 5 in float64, with the mean of all pairwise cosines."""
    base, models = base.astype(np.float64), [m.astype(np.float64) for m in models]
    deltas = [m - base for m in models]
    total = lambda x: x.sum(axis=axis, keepdims=True)  # noqa: E731
    pairs = [total(a * b) / np.sqrt(total(a * a) * total(b * b)) for a, b in itertools.combinations(deltas, 2)]
    c, n = np.mean(pairs, axis=0), len(models)
    t = n * c / (1 + (n - 1) * c)
    return t * np.mean(models, axis=0) + (1 - t) * base


def related(shape, count=3, seed=0):
    """Fine-tunes that have a change in common, so that every cosine is positive."""
    generator = np.random.default_rng(seed)
    base, common = generator.normal(size=(2, *shape))
    models = [base + 0.1 * (common + generator.normal(size=shape)) for _ in range(count)]
    return [m.astype(np.float32) for m in models], base.astype(np.float32)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(("rows", "axis"), [(False, None), (True, -1)])
def test_it_is_the_papers_equation(merge, count, rows, axis):
    models, base = related((40, 500), count)
    out = merge("model_stock", models, base=base, params={"filter_wise": rows}).numpy()
    np.testing.assert_allclose(out, oracle(models, base, axis), rtol=0, atol=1e-6)


def test_orthogonal_and_equal_task_vectors_worked_by_hand(merge):
    base = np.float32([1, 1, 1, 1])
    a, b = base + np.float32([1, 0, 1, 0]), base + np.float32([1, 0, 0, 1])
    # cos = 1/2, t = 2/3, the mean change is (1, 0, 1/2, 1/2).
    out = merge("model_stock", [a, b], base=base)
    assert out.tolist() == pytest.approx([1 + 2 / 3, 1, 1 + 1 / 3, 1 + 1 / 3], rel=1e-6)
    assert merge("model_stock", [a, a], base=base).tolist() == a.tolist()
    apart = [base + np.float32([1, 0, 0, 0]), base + np.float32([0, 1, 0, 0])]
    assert merge("model_stock", apart, base=base).tolist() == base.tolist()


@pytest.mark.parametrize("rows", [False, True])
def test_task_vectors_that_point_apart_give_the_base(merge, rows):
    base, change = np.float32([[1, 2, 3]]), np.float32([[1, -1, 2]])
    for models in ([base + change, base - change], [base + change, base - 3 * change, base - 2 * change]):
        out = merge("model_stock", models, base=base, params={"filter_wise": rows}).numpy()
        assert np.array_equal(out, base)


@pytest.mark.parametrize("rows", [False, True])
def test_small_task_vectors_count_in_full(merge, rows):
    models, base = related((8, 16))
    small = [((m - base) * 1e-6).astype(np.float32) for m in models]
    out = merge("model_stock", small, base=0 * base, params={"filter_wise": rows}).numpy()
    expected = oracle(small, 0 * base, -1 if rows else None)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("rows", [False, True])
def test_a_zero_task_vector_is_at_right_angles_to_every_other(merge, rows):
    base, change = np.float32([[0, 0]]), np.float32([[3, 4]])
    # Cosines 1, 0, 0: c = 1/3, t = 3 c / (1 + 2 c) = 3/5, and the mean change is 2/3 of the one there is.
    out = merge("model_stock", [change, change, base], base=base, params={"filter_wise": rows})
    np.testing.assert_allclose(out, 0.4 * change, rtol=1e-6)


def test_rows_have_shares_of_their_own(merge):
    base = np.zeros((2, 2), np.float32)
    a, b = np.float32([[1, 0], [1, 1]]), np.float32([[0, 1], [1, 1]])
    out = merge("model_stock", [a, b], base=base, params={"filter_wise": True})
    assert out.tolist() == [[0, 0], [1, 1]]
