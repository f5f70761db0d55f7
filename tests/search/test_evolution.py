import numpy as np
import pytest

from search.evolution import Evolution, constants, population

PYCMA = {
    "mean": [0.600417853169217, 0.20289888521599989, 0.36178982594584325],
    "sigma": 0.1431488799863497,
    "covariance": 0.0016574405065410032,
}


def loss(x) -> float:
    return float(((x - [0.9, 0.2, 0.5]) ** 2 * [1, 2, 3]).sum() + x[0] * x[2])


def test_twelve_generations_are_pycmas():
    """pycma 4.4.0 with default options, the same normal numbers and losses."""
    rng, state = np.random.default_rng(7), Evolution.start(np.full(3, 1 / 3), 1 / 6)
    for _ in range(12):
        points = np.array([state.point(normal) for normal in rng.standard_normal((state.size, 3))])
        state = state.after(points, np.array([loss(point) for point in points]))
    assert state.mean == pytest.approx(PYCMA["mean"], abs=1e-9)
    assert state.sigma == pytest.approx(PYCMA["sigma"], rel=1e-8)
    assert state.covariance[0, 1] == pytest.approx(PYCMA["covariance"], rel=1e-6)


def test_populations_are_the_tutorials():
    assert [population(n) for n in (1, 2, 3, 10, 24)] == [4, 6, 7, 10, 13]


def test_weights_of_six_are_those_worked_by_hand():
    found = constants(2, 6)
    raw = np.log(3.5) - np.log([1, 2, 3])
    assert found.weights[:3] == pytest.approx(raw / raw.sum())
    assert found.weights[3:].sum() < 0
    assert found.mueff == pytest.approx(raw.sum() ** 2 / (raw**2).sum())


def test_it_finds_the_minimum_of_a_turned_ellipsoid():
    rng, n = np.random.default_rng(1), 5
    turn, _ = np.linalg.qr(rng.standard_normal((n, n)))
    state = Evolution.start(np.zeros(n), 0.5)
    for _ in range(150):
        points = np.array([state.rooted(normal) for normal in rng.standard_normal((state.size, n))])
        state = state.after(points, np.array([(10.0 ** np.arange(n) * (turn @ (x - 0.7)) ** 2).sum() for x in points]))
    assert state.mean == pytest.approx(np.full(n, 0.7), abs=1e-4)


def test_both_roots_draw_from_one_distribution():
    rng, state = np.random.default_rng(2), Evolution.start(np.zeros(2), 1.0)
    for _ in range(5):
        points = np.array([state.point(normal) for normal in rng.standard_normal((state.size, 2))])
        state = state.after(points, (points[:, 0] - points[:, 1]) ** 2 + 0.01 * points.sum(1))
    normals = rng.standard_normal((20000, 2))
    for draw in (state.point, state.rooted):
        found = np.cov(np.array([draw(normal) for normal in normals]).T)
        assert found == pytest.approx(state.sigma**2 * state.covariance, rel=0.1)


def test_a_failure_ranks_last_and_breaks_nothing():
    state = Evolution.start(np.zeros(2), 0.3)
    points = np.array([state.point(normal) for normal in np.random.default_rng(3).standard_normal((6, 2))])
    with_failure = state.after(points, np.array([0, 1, 2, 3, 4, np.inf]))
    assert with_failure.mean == pytest.approx(state.after(points, np.arange(6.0)).mean)
