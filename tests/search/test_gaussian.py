import numpy as np
import pytest
from scipy.optimize import approx_fprime

from search.gaussian import (
    LEARNT,
    LENGTH,
    LEVEL,
    Data,
    Prior,
    Process,
    _cholesky,
    _cost,
    _joint,
    _prior_of_theta,
    common,
    fit,
)

RNG = np.random.default_rng(0)
POINTS = RNG.random((25, 4))
SCORES = np.sin(4 * POINTS[:, 0]) + POINTS[:, 1] - 0.8
OWNERS = np.array([0, 1, 2, 2])
DATA = Data(POINTS, SCORES, np.linspace(0.01, 0.04, 25), OWNERS)
THETA = np.array([-0.5, 0.1, 0.4, 0.2, -6.0])


def matern(one, other):
    apart = (one[:, None] - other) / np.exp(THETA[:3])[OWNERS]
    r = np.sqrt(5 * (apart**2).sum(2))
    return np.exp(THETA[3]) * (1 + r + r**2 / 3) * np.exp(-r) + LEVEL


def test_the_posterior_is_the_textbooks():
    """Rasmussen & Williams, eq. 2.23 and 2.24, by a plain inverse."""
    process, wanted = Process(DATA, THETA), RNG.random((6, 4))
    inverse = np.linalg.inv(matern(POINTS, POINTS) + np.diag(DATA.noise + np.exp(THETA[4])))
    cross = matern(wanted, POINTS)
    mean, sd = process.mean_and_sd(wanted)
    assert mean == pytest.approx(cross @ inverse @ SCORES)
    assert sd**2 == pytest.approx(np.diag(matern(wanted, wanted) - cross @ inverse @ cross.T), abs=1e-9)
    assert process.mean(wanted) == pytest.approx(mean)


def test_draws_have_the_posteriors_mean_and_spread():
    process, wanted = Process(DATA, THETA), RNG.random((3, 4))
    draws = np.array([process.draw(wanted, RNG) for _ in range(4000)])
    mean, sd = process.mean_and_sd(wanted)
    assert draws.mean(0) == pytest.approx(mean, abs=5 * sd.max() / 4000**0.5)
    assert draws.std(0) == pytest.approx(sd, rel=0.06)


def test_gradients_are_those_of_finite_differences():
    centre, spread = _prior_of_theta(3, Prior())
    gradient = _cost(THETA, DATA, centre, spread)[1]
    assert gradient == pytest.approx(
        approx_fprime(THETA, lambda theta: _cost(theta, DATA, centre, spread)[0], 1e-7), rel=1e-4, abs=1e-4
    )
    process, point = Process(DATA, THETA), RNG.random(4)
    mean, sd, by_mean, by_sd = process.slope(point)
    assert (mean, sd) == pytest.approx(tuple(float(part[0]) for part in process.mean_and_sd(point[None])))
    assert by_mean == pytest.approx(approx_fprime(point, lambda x: process.mean(x[None])[0], 1e-7), abs=1e-4)
    assert by_sd == pytest.approx(approx_fprime(point, lambda x: process.mean_and_sd(x[None])[1][0], 1e-7), abs=1e-4)


def test_a_coordinate_that_does_not_matter_gets_a_long_length():
    data = Data(POINTS[:, :3], SCORES, np.full(25, 1e-3), np.arange(3))
    lengths = np.exp(fit(data).theta[:3])
    assert lengths[2] > 2 * lengths[0]


def test_what_is_noisy_is_believed_less():
    points = np.array([[0.5], [0.5]])
    process = Process(Data(points, np.array([1.0, -1.0]), np.array([0.01, 1.0]), np.array([0])), np.array([0.0, 0, -8]))
    assert process.mean(points[:1])[0] > 0.9


def test_candidates_under_way_add_certainty_and_no_news():
    process, wanted = Process(DATA, THETA), RNG.random((2, 4))
    believing = process.believing(wanted, 0.01)
    assert believing.mean(POINTS) == pytest.approx(process.mean(POINTS), abs=1e-8)
    assert (believing.mean_and_sd(wanted)[1] < process.mean_and_sd(wanted)[1]).all()


def test_without_data_the_prior_is_left():
    process = fit(Data(np.empty((0, 2)), np.empty(0), np.empty(0), np.arange(2)))
    mean, sd = process.mean_and_sd(np.array([[0.2, 0.9]]))
    assert mean == pytest.approx([0.0])
    assert sd == pytest.approx([(1 + LEVEL) ** 0.5])


def test_equal_points_without_noise_do_not_break_it():
    process = fit(Data(np.full((5, 2), 0.5), np.zeros(5), np.zeros(5), np.arange(2)))
    assert np.isfinite(process.mean(np.array([[0.1, 0.1]]))).all()


def test_what_is_no_covariance_is_refused():
    with pytest.raises(ValueError, match="no root"):
        _cholesky(np.array([[0.0, 1.0], [1.0, 0.0]]))


SHARED = np.array([0.3, -0.4, -6.5])


def test_the_gradient_of_what_processes_share_is_that_of_finite_differences():
    other = Data(POINTS[:9, :2], SCORES[:9], np.full(9, 0.02), np.array([0, 1]))
    rest = ([DATA, other], np.array(Prior()[:3]), np.array([0.8, 1.0, 1.5]))
    slope = approx_fprime(SHARED, lambda theta: _joint(theta, *rest)[0], 1e-7)
    assert _joint(SHARED, *rest)[1] == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_processes_learn_their_prior_from_one_another():
    """Rough landscapes teach short lengths, smooth ones long lengths; two scores teach nothing."""
    rng, learnt = np.random.default_rng(1), {}
    for name, waves in (("rough", 25.0), ("smooth", 1.5)):
        points = [rng.random((30, 1)) for _ in range(3)]
        every = [Data(x, np.sin(waves * x[:, 0]), np.full(30, 1e-4), np.zeros(1, dtype=int)) for x in points]
        learnt[name] = common(every)
    assert learnt["rough"].length < -1.0 < learnt["smooth"].length
    assert learnt["rough"].share == LEARNT
    few = Data(np.array([[0.1], [0.9]]), np.array([-1.0, 1.0]), np.full(2, 1e-4), np.zeros(1, dtype=int))
    assert common([few, few]) == Prior()
    # Under the learnt prior a process with these two scores alone has short lengths, under the usual one long ones.
    taught, alone = fit(few, learnt["rough"]), fit(few)
    assert np.exp(taught.theta[0]) == pytest.approx(LENGTH * np.exp(learnt["rough"].length))
    assert np.exp(alone.theta[0]) == pytest.approx(LENGTH)
