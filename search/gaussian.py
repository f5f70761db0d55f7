"""A small Gaussian process: Matern-5/2 with one length per coordinate, noise given point by point, plus a nugget.

Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), ch. 2 and 5: the posterior (eq. 2.23, 2.24) and
the gradient of the log marginal likelihood (eq. 5.9). Hyperparameters are those of highest posterior density: lengths,
signal and nugget are log-normal a priori, the lengths' median grows with the square root of the dimension (Hvarfner et
al., Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML 2024).

Several processes of one study may have a prior in common that is estimated from all of them (empirical Bayes; ch. 5.4.3
on multi-task learning): one factor of all lengths, one signal, one nugget. Each then departs from it as its data ask.

Scores are centred and scaled by the caller; what is left of a constant is part of the prior (`LEVEL`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize

Floats = NDArray[np.float64]

#: Prior variance of the constant, in squared scales.
LEVEL = 1.0
#: Median of a length in one dimension, and the spread of its logarithm.
LENGTH, LENGTH_SPREAD = 0.6, 0.8
#: Median and log-spread of the signal's variance, and of the nugget's.
SIGNAL, SIGNAL_SPREAD = 1.0, 1.0
NUGGET, NUGGET_SPREAD = 3e-4, 1.5
#: What is left of these spreads where the medians were learnt from the study's processes.
LEARNT = 0.6
#: Hyperparameters stay within so many spreads of their medians.
REACH = 3.5
_ROOT5 = math.sqrt(5.0)


class Prior(NamedTuple):
    """Medians of the hyperparameters' logarithms, and how far processes depart from them.

    Attributes:
        length: of the factor by which lengths differ from what the dimension says.
        signal, nugget: of the variances.
        share: of the usual spreads.
    """

    length: float = 0.0
    signal: float = math.log(SIGNAL)
    nugget: float = math.log(NUGGET)
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Data:
    """What a process is conditioned on.

    Attributes:
        points: (n, columns).
        scores: (n,), centred and scaled.
        noise: (n,) variance of each score, scaled alike.
        owners: (columns,) the coordinate whose length each column has.
    """

    points: Floats
    scores: Floats
    noise: Floats
    owners: NDArray[np.intp]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return int(self.owners.max()) + 1 if len(self.owners) else 0


class Process:
    """The posterior under given hyperparameters.

    Args:
        data: see `Data`.
        theta: (size + 2,) logarithms of the lengths, of the signal's variance and of the nugget.
    """

    def __init__(self, data: Data, theta: Floats) -> None:
        self.data, self.theta = data, theta
        self._inverse_lengths = np.exp(-theta[:-2])[data.owners]
        self._signal, self._nugget = math.exp(theta[-2]), math.exp(theta[-1])
        self._scaled = data.points * self._inverse_lengths
        covariance = self._prior(self._scaled, self._scaled)
        covariance[np.diag_indices(len(covariance))] += data.noise + self._nugget
        self._root = _cholesky(covariance)
        self._weights = _solve(self._root, data.scores)

    def mean(self, points: Floats) -> Floats:
        """(m,) posterior mean of the score without noise or nugget."""
        return np.asarray(self._prior(points * self._inverse_lengths, self._scaled) @ self._weights)

    def mean_and_sd(self, points: Floats) -> tuple[Floats, Floats]:
        """(m,), (m,) posterior mean and standard deviation."""
        cross = self._prior(points * self._inverse_lengths, self._scaled)
        half = _half(self._root, cross.T)
        variance = self._signal + LEVEL - np.einsum("ij,ij->j", half, half)
        return np.asarray(cross @ self._weights), np.sqrt(np.maximum(variance, 1e-12))

    def draw(self, points: Floats, rng: np.random.Generator) -> Floats:
        """(m,) one joint draw from the posterior."""
        scaled = points * self._inverse_lengths
        cross = self._prior(scaled, self._scaled)
        half = _half(self._root, cross.T)
        covariance = self._prior(scaled, scaled) - half.T @ half
        covariance[np.diag_indices(len(covariance))] += 1e-6 * self._signal
        return np.asarray(cross @ self._weights + np.tril(_cholesky(covariance)) @ rng.standard_normal(len(points)))

    def believing(self, points: Floats, noise: float) -> Process:
        """The process after scores equal to its own mean at `points`: what is under way adds no news but certainty."""
        data = Data(
            np.concatenate([self.data.points, points]),
            np.concatenate([self.data.scores, self.mean(points)]),
            np.concatenate([self.data.noise, np.full(len(points), noise)]),
            self.data.owners,
        )
        return Process(data, self.theta)

    def slope(self, point: Floats) -> tuple[float, float, Floats, Floats]:
        """Mean and standard deviation at one point, and their gradients by its columns.

        Args:
            point: (columns,).
        """
        scaled = point * self._inverse_lengths
        apart = scaled - self._scaled
        distance = np.sqrt(np.einsum("ij,ij->i", apart, apart))
        decay = self._signal * np.exp(-_ROOT5 * distance)
        cross = decay * (1 + _ROOT5 * distance + 5 / 3 * distance**2) + LEVEL
        by_point = (-5 / 3 * decay * (1 + _ROOT5 * distance))[:, None] * apart * self._inverse_lengths
        solved = _solve(self._root, cross)
        sd = math.sqrt(max(self._signal + LEVEL - float(cross @ solved), 1e-12))
        return float(cross @ self._weights), sd, self._weights @ by_point, -(solved @ by_point) / sd

    def _prior(self, one: Floats, other: Floats) -> Floats:
        return self._signal * _matern(_distances(one, other)) + LEVEL


def common(every: Sequence[Data], *, steps: int = 15) -> Prior:
    """The prior that several processes have in common, learnt from those with three scores or more.

    Its medians have the highest posterior density over all of them together, each having just these hyperparameters.
    """
    told = [data for data in every if len(data.scores) >= 3]
    if not told:
        return Prior()
    centre = np.array(Prior()[:3])
    spread = np.array([LENGTH_SPREAD, SIGNAL_SPREAD, NUGGET_SPREAD])
    bounds = list(zip(centre - REACH * spread, centre + REACH * spread, strict=True))
    options = {"maxiter": steps}
    found = minimize(_joint, centre, (told, centre, spread), "L-BFGS-B", jac=True, bounds=bounds, options=options)
    length, signal, nugget = map(float, found.x)
    return Prior(length, signal, nugget, LEARNT)


def fit(data: Data, prior: Prior | None = None, *, steps: int = 30) -> Process:
    """The process under the hyperparameters of highest posterior density found.

    A pure function of the data: it starts from the priors' medians, and from shorter lengths too where data are few
    and the density may well have two modes.

    Args:
        data: see `Data`.
        prior: of the hyperparameters; by default the usual one.
        steps: of the optimiser, at most.
    """
    centre, spread = _prior_of_theta(data.size, prior or Prior())
    if len(data.scores) < 3:
        return Process(data, centre)
    bounds = list(zip(centre - REACH * spread, centre + REACH * spread, strict=True))
    starts = [centre]
    if len(data.scores) <= 60:
        starts.append(centre - np.array([1.2] * data.size + [0.0, 0.0]))
    found = [
        minimize(_cost, start, (data, centre, spread), "L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": steps})
        for start in starts
    ]
    return Process(data, min(found, key=lambda result: float(result.fun)).x)


def _prior_of_theta(size: int, prior: Prior) -> tuple[Floats, Floats]:
    """Medians and spreads of theta."""
    length = math.log(LENGTH * math.sqrt(max(size, 1))) + prior.length
    centre = np.array([length] * size + [prior.signal, prior.nugget])
    return centre, prior.share * np.array([LENGTH_SPREAD] * size + [SIGNAL_SPREAD, NUGGET_SPREAD])


def _joint(shared: Floats, every: Sequence[Data], centre: Floats, spread: Floats) -> tuple[float, Floats]:
    """Negative log posterior density of what processes share, and its gradient."""
    away = (shared - centre) / spread
    cost, gradient = 0.5 * float(away @ away), away / spread
    for data in every:
        part, slope = _misfit(_prior_of_theta(data.size, Prior(*shared))[0], data)
        cost += part
        gradient = gradient + np.array([slope[:-2].sum(), slope[-2], slope[-1]])
    return cost, gradient


def _cost(theta: Floats, data: Data, centre: Floats, spread: Floats) -> tuple[float, Floats]:
    """Negative log posterior density of theta, and its gradient."""
    away = (theta - centre) / spread
    cost, gradient = _misfit(theta, data)
    return cost + 0.5 * float(away @ away), gradient + away / spread


def _misfit(theta: Floats, data: Data) -> tuple[float, Floats]:
    """Negative log marginal likelihood of theta (less a constant), and its gradient."""
    inverse = np.exp(-theta[:-2])[data.owners]
    signal, nugget = math.exp(theta[-2]), math.exp(theta[-1])
    scaled = data.points * inverse
    distance = _distances(scaled, scaled)
    shape, decay = _matern(distance), np.exp(-_ROOT5 * distance)
    covariance = signal * shape + LEVEL
    covariance[np.diag_indices(len(covariance))] += data.noise + nugget
    root = _cholesky(covariance)
    weights = _solve(root, data.scores)
    cost = 0.5 * data.scores @ weights + np.log(np.diag(root)).sum()
    # d cost / d covariance, times what the lengths change: (5/3)(1 + sqrt5 r) exp(-sqrt5 r) per squared distance.
    inner = 0.5 * (_inverse(root) - np.outer(weights, weights))
    pull = inner * (signal * 5 / 3) * (1 + _ROOT5 * distance) * decay
    by_column = 2 * (pull.sum(0) @ scaled**2 - np.einsum("ij,ij->j", scaled, pull @ scaled))
    by_length = np.bincount(data.owners, by_column, minlength=data.size) if data.size else np.empty(0)
    return float(cost), np.concatenate([by_length, [signal * np.sum(inner * shape), nugget * np.trace(inner)]])


def _distances(one: Floats, other: Floats) -> Floats:
    """(m, n) Euclidean distances."""
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _matern(distance: Floats) -> Floats:
    reach = _ROOT5 * distance
    return np.asarray((1 + reach + reach**2 / 3) * np.exp(-reach))


def _cholesky(covariance: Floats) -> Floats:
    """Lower root; a diagonal that rounding has made negative is lifted until it has one."""
    lift = 0.0
    for _ in range(8):
        root, info = lapack.dpotrf(covariance + lift * np.eye(len(covariance)) if lift else covariance, lower=1)
        if info == 0:
            return np.asarray(root)
        lift = max(10 * lift, 1e-10 * float(np.trace(covariance)) / len(covariance))
    raise ValueError(f"a covariance of {len(covariance)} points has no root: are there scores that are not finite?")


def _solve(root: Floats, right: Floats) -> Floats:
    return np.asarray(lapack.dpotrs(root, right, lower=1)[0]) if len(root) else np.zeros_like(right)


def _half(root: Floats, right: Floats) -> Floats:
    return np.asarray(lapack.dtrtrs(root, right, lower=1)[0]) if len(root) else np.zeros_like(right)


def _inverse(root: Floats) -> Floats:
    lower = lapack.dpotri(root, lower=1)[0]
    return np.asarray(np.tril(lower) + np.tril(lower, -1).T)
