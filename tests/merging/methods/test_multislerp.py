from __future__ import annotations

import math

import numpy as np
import pytest

from merging.methods.multislerp import multislerp_factors


def oracle(vectors, weights, normalize=True):
    """The source's procedure in float64: to the tangent space at the mean, along the mean tangent, and back."""
    flat = np.stack([v.astype(np.float64).ravel() for v in vectors])
    weights = np.array(weights, dtype=np.float64) / (sum(weights) if normalize else 1.0)
    sizes = np.linalg.norm(flat, axis=1)
    units = flat / sizes[:, None]
    mean = weights @ units
    mean /= np.linalg.norm(mean)
    tangent = weights @ (units - (units @ mean)[:, None] * mean)
    angle = np.linalg.norm(tangent)
    along = np.sinc(angle / np.pi) * tangent
    return ((math.cos(angle) * mean + along) * (weights @ sizes)).reshape(vectors[0].shape)


def sources(*weights):
    return [{"weight": weight} for weight in weights]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 0.5, 1.1), (1.0, -0.25, 0.5)])
def test_it_is_the_source_s_procedure(merge, arrays, weights):
    models = [array * (1 + i) for i, array in enumerate(arrays[:3])]
    out = merge("multislerp", models, sources=sources(*weights)).numpy()
    np.testing.assert_allclose(out, oracle(models, weights), rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_on_a_base_it_takes_task_vectors(merge, arrays, normalize):
    *models, base = arrays
    weights = (0.2, 0.5, 1.1)
    out = merge(
        "multislerp", models, base=base, params={"normalize_weights": normalize}, sources=sources(*weights)
    ).numpy()
    deltas = [model - base for model in models]
    np.testing.assert_allclose(out, base + oracle(deltas, weights, normalize), rtol=0, atol=2e-6)


def test_directions_and_lengths_are_averaged_apart_worked_by_hand(merge):
    out = merge("multislerp", [np.float32([4, 0]), np.float32([0, 2])])
    assert out.tolist() == pytest.approx([3 * math.sqrt(0.5)] * 2, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_directions_that_cancel_take_the_line(merge, count):
    a = np.float32([[1, 2], [3, 4]])
    vectors, weights = ([a, -a], (1.0, 1.0)) if count == 2 else ([a, -a, -a], (2.0, 1.0, 1.0))
    assert np.array_equal(merge("multislerp", vectors, sources=sources(*weights)).numpy(), 0 * a)
    longer = [vectors[0] * 3, *vectors[1:]]
    expected = sum(w * v for w, v in zip(weights, longer, strict=True)) / sum(weights)
    np.testing.assert_allclose(merge("multislerp", longer, sources=sources(*weights)).numpy(), expected, rtol=1e-6)


def test_a_zero_tensor_shortens_the_result_and_turns_nothing(merge):
    out = merge("multislerp", [np.float32([0, 0]), np.float32([3, 4])], sources=sources(1.0, 3.0))
    assert out.tolist() == pytest.approx([2.25, 3.0], rel=1e-6)


def test_small_tensors_keep_their_directions(merge):
    out = merge("multislerp", [np.float32([1e-12, 0]), np.float32([0, 1e-12])])
    assert out.tolist() == pytest.approx([math.sqrt(0.5) * 1e-12] * 2, rel=1e-6)


def test_eps_says_how_short_a_mean_direction_may_be():
    nearly = [[1.0, -0.9998], [-0.9998, 1.0]]
    assert multislerp_factors([0.5, 0.5], nearly, 1e-8) == pytest.approx([50.0, 50.0], rel=1e-3)
    assert multislerp_factors([0.5, 0.5], nearly, 0.02) == [0.5, 0.5]


def test_one_source_is_itself(merge):
    one = np.float32([0.1, -7.3, 4e-9])
    assert np.array_equal(merge("multislerp", [one]).numpy(), one)
