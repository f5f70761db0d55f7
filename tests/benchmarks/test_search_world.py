"""The simulated world has the properties that make it worth searching in."""

import numpy as np
import pytest

from benchmarks.search_world import FULL, PER_TASK, TASKS, mixed, numeric


def _landscape(world):
    (found,) = world._landscapes.values()
    return found


@pytest.mark.parametrize("dimensions", [2, 4, 6, 10])
def test_uniform_lies_two_to_three_points_below_the_best(dimensions):
    for seed in range(3):
        world = numeric(seed, dimensions)
        assert len(world.space.holes) == dimensions
        assert 2.0 < world.regret(world.uniform) < 3.0
        assert all(world.regret(parent) > world.regret(world.uniform) for parent in world.parents)


def test_the_true_accuracy_is_the_mean_over_many_items():
    # 60 worlds share shape but not items, so the mean error of 60 x 6,000 items is within a fifth of a point.
    errors = []
    for seed in range(60):
        world = numeric(seed, 4)
        right = np.concatenate([world.margins(world.uniform), world.held_out(world.uniform)], axis=1) > 0
        errors.append(right.mean() - world.accuracy(world.uniform))
    assert abs(np.mean(errors)) < 0.002
    assert np.std(errors) == pytest.approx(np.sqrt(0.23 / (2 * FULL)), rel=0.3)


@pytest.mark.parametrize("dimensions", [4, 10])
def test_near_candidates_disagree_on_few_items_and_uniform_and_best_on_more(dimensions):
    near, far = [], []
    for seed in range(4):
        world = numeric(seed, dimensions)
        landscape = _landscape(world)
        best = world._search.margins(landscape, landscape.optimum) > 0
        step = np.random.default_rng(seed).normal(size=dimensions)
        beside = landscape.optimum + 0.12 * step / np.linalg.norm(step)
        near.append((best != (world._search.margins(landscape, beside) > 0)).mean())
        far.append((best != (world._search.margins(landscape, landscape.centre) > 0)).mean())
    assert 0.01 < np.mean(near) < 0.02
    assert 0.04 < np.mean(far) < 0.09


def test_a_fifth_of_the_box_lies_beyond_the_cliff():
    landscape = _landscape(numeric(3, 6))
    direction, edge = landscape._edge
    box = np.random.default_rng(0).uniform(size=(4000, 6))
    assert (box @ direction > edge).mean() == pytest.approx(0.2, abs=0.03)


def test_margins_have_the_sign_of_the_outcome_and_the_seed_decides_them():
    world = numeric(5, 2)
    margins = world.margins(world.uniform)
    assert margins.shape == (TASKS, PER_TASK)
    assert np.array_equal(margins, numeric(5, 2).margins(world.uniform))
    assert not np.array_equal(margins, numeric(6, 2).margins(world.uniform))
    assert 0.5 < (margins > 0).mean() < 0.8


def test_the_mixed_world_has_methods_of_different_worth():
    world = mixed(1)
    bests = {method: landscape.best() for method, landscape in world._landscapes.items()}
    assert len(bests) == 4
    assert max(bests.values()) == world.best
    assert 100 * (max(bests.values()) - min(bests.values())) == pytest.approx(3.0, abs=0.7)
    sizes = {method: landscape.dimensions for method, landscape in world._landscapes.items()}
    assert sizes == {"task_arithmetic": 4, "ties": 8, "dare_ties": 8, "slerp": 2}
