import numpy as np
import pytest
from studies import merges

from search.past import Past
from search.sensitivity import LEAST, fit, sensitivity

SPACE = merges("linear", layer_groups=2)


def results(count, score, *, variance=1e-8, seed=0, noise=0.0):
    """Uniform draws over the weights of three sources in two layer groups."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        values = {h.name: float(rng.uniform(h.spec.search_low, h.spec.search_high)) for h in SPACE.holes}
        found.append(Past(number, "complete", values, score(values) + noise * rng.normal(), variance, 100))
    return found


def unit(name, value):
    hole = next(hole for hole in SPACE.holes if hole.name == name)
    return (value - hole.spec.search_low) / (hole.spec.search_high - hole.spec.search_low)


SLOPES = {"a.g0": 0.10, "a.g1": -0.04, "b.g0": 0.0, "b.g1": 0.02, "c.g0": 0.0, "c.g1": 0.0}


def linear(values):
    return 0.5 + sum(
        slope * unit(f"merge.linear.weight.{cell}", values[f"merge.linear.weight.{cell}"])
        for cell, slope in SLOPES.items()
    )


def test_slopes_of_a_plane_are_found_in_points_per_interval():
    (found,) = sensitivity(SPACE, results(60, linear))
    slopes = {f"{p['source']}.g{p['layer_group']}": p for p in found["parameters"]}
    for cell, slope in SLOPES.items():
        assert slopes[cell]["points"] == pytest.approx(100 * slope, abs=0.1)
        assert slopes[cell]["low"] <= 100 * slope <= slopes[cell]["high"]
    sources = {entry["source"]: entry["points"] for entry in found["sources"]}
    assert sources == {"a": pytest.approx(6, abs=0.2), "b": pytest.approx(2, abs=0.2), "c": pytest.approx(0, abs=0.2)}
    groups = {entry["layer_group"]: entry["points"] for entry in found["layer_groups"]}
    assert groups[0] == pytest.approx(10.0, abs=0.2)
    assert groups[1] == pytest.approx(np.hypot(4, 2), abs=0.2)


def test_slopes_of_a_parabola_are_those_at_the_best_candidate():
    name = "merge.linear.weight.a.g0"

    def bowl(values):
        return 0.5 - 0.2 * (unit(name, values[name]) - 0.5) ** 2

    (found,) = sensitivity(SPACE, results(200, bowl))
    first = next(p for p in found["parameters"] if p["name"] == name)
    # The best of two hundred draws is near the top, where nothing slopes.
    assert abs(first["points"]) < 1.0


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = tried = 0
    for seed in range(25):
        (found,) = sensitivity(SPACE, results(40, linear, variance=1e-4, noise=0.01, seed=seed))
        for p in found["parameters"]:
            true = 100 * SLOPES[f"{p['source']}.g{p['layer_group']}"]
            covered, tried = covered + (p["low"] <= true <= p["high"]), tried + 1
    assert 0.88 <= covered / tried <= 1.0


def test_with_few_results_intervals_are_wide_and_with_fewer_nothing_is_said():
    (few,) = sensitivity(SPACE, results(8, linear))
    (many,) = sensitivity(SPACE, results(80, linear))
    width = lambda found: np.mean([p["high"] - p["low"] for p in found["parameters"]])  # noqa: E731
    assert width(few) > 5 * width(many)
    assert sensitivity(SPACE, results(LEAST - 1, linear)) == []


def test_the_fit_is_ridge_regression_by_hand():
    inputs = np.array([[-1.0], [0.0], [1.0]])
    found = fit(inputs, np.array([0.0, 0.5, 1.0]), np.full(3, 1e-12), squares=False)
    noise = 1e-12 + found.lack_sd**2
    # Centred inputs: the level drops out, and the slope is sum(x y) / (sum(x^2) + noise / prior^2).
    assert found.mean[0] == pytest.approx(1.0 / (2.0 + noise / found.prior_sd**2))
    assert found.covariance[0, 0] == pytest.approx(1 / (2.0 / noise + 1 / found.prior_sd**2))


def test_each_structure_is_fitted_by_itself():
    both = merges("linear", "task_arithmetic")
    rng, pasts = np.random.default_rng(1), []
    for number in range(24):
        method = ("linear", "task_arithmetic")[number % 2]
        values = {"merge.method": method}
        for hole in both.active(values):
            if hole.name not in values:
                values[hole.name] = float(rng.uniform(hole.spec.search_low, hole.spec.search_high))
        pasts.append(Past(number, "complete", values, float(rng.random()), 0.0, 100))
    found = sensitivity(both, pasts)
    assert [(one["when"]["merge.method"], one["trials"]) for one in found] == [("linear", 12), ("task_arithmetic", 12)]
