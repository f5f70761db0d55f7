from __future__ import annotations

import math

import numpy as np
import pytest


def oracle(vectors, weights, steps=500):
    """The iteration on the vectors themselves, in float64, to the end."""
    flat = np.stack([v.astype(np.float64).ravel() for v in vectors])
    weights = np.array(weights, dtype=np.float64) / sum(weights)
    sizes = np.linalg.norm(flat, axis=1)
    units = flat / sizes[:, None]
    point = weights @ units
    point /= np.linalg.norm(point)
    for _ in range(steps):
        tangent = np.zeros_like(point)
        for weight, unit in zip(weights, units, strict=True):
            theta = math.acos(min(1.0, unit @ point))
            tangent += weight * (theta / math.sin(theta) if theta > 1e-9 else 1.0) * (unit - unit @ point * point)
        angle = np.linalg.norm(tangent)
        if angle < 1e-15:
            break
        point = math.cos(angle) * point + math.sin(angle) * tangent / angle
        point /= np.linalg.norm(point)
    return (point * (weights @ sizes)).reshape(vectors[0].shape)


def sources(*weights):
    return [{"weight": weight} for weight in weights]


EXACT = {"max_iter": 200, "tol": 1e-9}


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.1, 0.5, 2.0)])
def test_it_is_the_papers_iteration_to_its_end(merge, weights):
    vectors = [np.random.default_rng(seed).normal(size=(30, 20)).astype(np.float32) * (1 + seed) for seed in range(3)]
    out = merge("karcher", vectors, params=EXACT, sources=sources(*weights)).numpy()
    np.testing.assert_allclose(out, oracle(vectors, weights), rtol=0, atol=2e-6)


def test_near_models_are_averaged_as_well_as_far_ones(merge, arrays):
    out = merge("karcher", arrays[:3], params=EXACT).numpy()
    np.testing.assert_allclose(out, oracle(arrays[:3], (1, 1, 1)), rtol=0, atol=1e-6)


def test_the_mean_of_three_directions_has_no_tangent_left(merge):
    vectors = [np.float32([1, 0, 0]), np.float32([0, 1, 0]), np.float32([0.6, 0, 0.8])]
    point = merge("karcher", vectors, params=EXACT).numpy().astype(np.float64)
    assert np.linalg.norm(point) == pytest.approx(1.0, rel=1e-6)
    thetas = [math.acos(point @ v) for v in vectors]
    tangent = sum(t / math.sin(t) * (v - math.cos(t) * point) for t, v in zip(thetas, vectors, strict=True))
    assert np.linalg.norm(tangent) < 1e-6


def test_two_models_meet_half_way_on_the_arc_worked_by_hand(merge):
    out = merge("karcher", [np.float32([4, 0]), np.float32([0, 2])])
    assert out.tolist() == pytest.approx([3 * math.sqrt(0.5)] * 2, rel=1e-6)


def test_weights_divide_the_arc_of_two_models(merge):
    out = merge("karcher", [np.float32([1, 0]), np.float32([0, 1])], params=EXACT, sources=sources(2.0, 1.0))
    assert out.tolist() == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)], rel=1e-6)


def test_one_step_goes_less_far_than_ten(merge):
    vectors = [np.float32([1, 0, 0]), np.float32([-0.5, 1, 0]), np.float32([0.6, 0, 0.8])]
    end = oracle(vectors, (1, 1, 1))
    distance = [
        np.linalg.norm(merge("karcher", vectors, params={"max_iter": steps, "tol": 0.0}).numpy() - end)
        for steps in (1, 2, 10)
    ]
    assert distance[0] > 2 * distance[1] > 4 * distance[2]


def test_directions_that_cancel_take_the_line(merge):
    a = np.float32([1, 2])
    assert merge("karcher", [3 * a, -a]).tolist() == a.tolist()


def test_a_zero_tensor_has_no_direction_and_counts_for_the_length(merge):
    out = merge("karcher", [np.float32([0, 0]), np.float32([6, 0]), np.float32([0, 6])])
    assert out.tolist() == pytest.approx([4 * math.sqrt(0.5)] * 2, rel=1e-6)


def test_tiny_tensors_have_directions(merge):
    out = merge("karcher", [np.float32([1e-12, 0]), np.float32([0, 1e-12])])
    assert out.tolist() == pytest.approx([math.sqrt(0.5) * 1e-12] * 2, rel=1e-6)


def test_a_source_opposite_the_mean_pulls_nowhere(merge):
    vectors = [np.float32([1, 0]), np.float32([1, 0]), np.float32([-1, 0])]
    assert merge("karcher", vectors).tolist() == pytest.approx([1.0, 0.0], abs=1e-7)


def test_weights_that_are_all_zero_count_as_equal(merge, arrays):
    zero, one = (merge("karcher", arrays[:3], sources=sources(w, w, w)) for w in (0.0, 1.0))
    assert np.array_equal(zero.numpy(), one.numpy())
