"""CMA-ES: a normal distribution that follows the better half of its own draws.

Hansen, The CMA Evolution Strategy: A Tutorial (arXiv 1604.00772): recombination and active covariance update with
negative weights (eq. 46, 47, 49-53), cumulative step-size control (eq. 43, 44). Constants are the tutorial's as pycma 4
sets them by default; given equal normal draws and losses the states agree with pycma's (compared to 1e-9).

Differs from pycma: nothing is terminated or restarted here, an ill-conditioned matrix is not rescaled, and populations
below six are not mirrored (which concerns one dimension only).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Constants:
    """What depends on dimension and population alone.

    Attributes:
        weights: (size,) of the draws, best first; the first `parents` are positive and sum to 1.
        mueff: effective number of parents.
        c1, cmu, cc, cs, damping: the learning rates of tutorial table 1.
    """

    weights: Floats
    parents: int
    mueff: float
    c1: float
    cmu: float
    cc: float
    cs: float
    damping: float


@lru_cache(maxsize=64)
def constants(n: int, size: int) -> Constants:
    """For `n` dimensions and a population of `size`."""
    raw = math.log((size + 1) / 2) - np.log(np.arange(1, size + 1))
    parents = int((raw > 0).sum())
    positive, negative = raw[:parents] / raw[:parents].sum(), raw[parents:]
    mueff = 1 / float((positive**2).sum())
    c1 = min(1, size / 6) * 2 / ((n + 1.3) ** 2 + mueff)
    cmu = min(1 - c1, 2 * (0.25 + mueff + 1 / mueff - 2) / ((n + 2) ** 2 + mueff))
    effective = float(negative.sum() ** 2 / (negative**2).sum())
    mass = min(1 + c1 / cmu, (1 - c1 - cmu) / cmu / n, 1 + 2 * effective / (mueff + 2))
    cs = (mueff + 2) / (n + mueff + 3)
    return Constants(
        weights=np.concatenate([positive, negative * mass / -negative.sum()]),
        parents=parents,
        mueff=mueff,
        c1=c1,
        cmu=cmu,
        cc=(4 + mueff / n) / (n + 4 + 2 * mueff / n),
        cs=cs,
        damping=1 + cs + 2 * max(0.0, math.sqrt((mueff - 1) / (n + 1)) - 1),
    )


def population(n: int) -> int:
    """The usual size: 4 + floor(3 ln n) (tutorial eq. 48)."""
    return 4 + int(3 * math.log(n))


@dataclass(frozen=True)
class Evolution:
    """One generation's distribution, N(mean, sigma^2 covariance).

    Attributes:
        size: draws per generation.
        path, step_path: the evolution paths of the covariance and of the step size.
        generation: how many generations came before.
    """

    mean: Floats
    sigma: float
    size: int
    covariance: Floats
    path: Floats
    step_path: Floats
    generation: int = 0

    @staticmethod
    def start(mean: Floats, sigma: float, size: int | None = None) -> Evolution:
        """The first generation: independent coordinates, apart by 1e-4 in all so that no two axes are equal."""
        n, zero = len(mean), np.zeros(len(mean))
        covariance = np.diag(np.exp(1e-4 / n * np.arange(n)))
        return Evolution(np.asarray(mean, float), sigma, size or population(n), covariance, zero, zero)

    @cached_property
    def _axes(self) -> tuple[Floats, Floats]:
        """Lengths (n,) and directions (n, n) of the principal axes."""
        if self.generation == 0:
            # Still diagonal: the coordinates themselves.
            return np.sqrt(np.diag(self.covariance)), np.eye(len(self.mean))
        squared, directions = np.linalg.eigh(self.covariance)
        return np.sqrt(np.maximum(squared, 1e-20)), directions

    def point(self, normal: Floats) -> Floats:
        """(n,) the draw that (n,) independent standard normal numbers amount to."""
        lengths, directions = self._axes
        return np.asarray(self.mean + self.sigma * (directions @ (lengths * normal)))

    def rooted(self, normal: Floats) -> Floats:
        """(n,) as `point`, by the covariance's symmetric root, which no sign of an eigenvector can change."""
        lengths, directions = self._axes
        return np.asarray(self.mean + self.sigma * (directions @ (lengths * (directions.T @ normal))))

    def _whitened(self, vectors: Floats) -> Floats:
        """Vectors (..., n) without the covariance: C^(-1/2) v."""
        lengths, directions = self._axes
        return np.asarray(((vectors @ directions) / lengths) @ directions.T)

    def after(self, points: Floats, losses: Floats) -> Evolution:
        """The next generation.

        Args:
            points: (size, n) the draws.
            losses: (size,) lower is better; among equals the earlier draw ranks first.
        """
        n, k = len(self.mean), constants(len(self.mean), self.size)
        steps = (points[np.argsort(losses, kind="stable")] - self.mean) / self.sigma
        shift = k.weights[: k.parents] @ steps[: k.parents]
        step_path = (1 - k.cs) * self.step_path + math.sqrt(k.cs * (2 - k.cs) * k.mueff) * self._whitened(shift)
        squared = float(step_path @ step_path)
        settled = squared / (1 - (1 - k.cs) ** (2 * (self.generation + 1))) / n < 2 + 4 / (n + 1)
        path = (1 - k.cc) * self.path + settled * math.sqrt(k.cc * (2 - k.cc) * k.mueff) * shift
        growth = k.cs / k.damping * (math.sqrt(squared) / _expected_norm(n) - 1)
        return Evolution(
            mean=self.mean + self.sigma * shift,
            sigma=self.sigma * math.exp(min(max(growth, -1.0), 1.0)),
            size=self.size,
            covariance=self._learnt(steps, path, settled, k),
            path=path,
            step_path=step_path,
            generation=self.generation + 1,
        )

    def _learnt(self, steps: Floats, path: Floats, settled: bool, k: Constants) -> Floats:
        lost = 0.0 if settled else k.c1 * k.cc * (2 - k.cc)
        norms = (self._whitened(steps) ** 2).sum(1)
        limited = np.where(k.weights < 0, len(path) / (np.sqrt(norms) + 1e-9) ** 2, 1.0)
        kept = 1 - (k.c1 - lost) - k.cmu * k.weights.sum()
        spread = (steps.T * (k.cmu * k.weights * limited)) @ steps
        learnt = kept * self.covariance + k.c1 * np.outer(path, path) + spread
        return np.asarray((learnt + learnt.T) / 2)


def _expected_norm(n: int) -> float:
    """Of n independent standard normal numbers: exact up to six, then pycma's series."""
    if n <= 6:
        return math.sqrt(2) * math.gamma((n + 1) / 2) / math.gamma(n / 2)
    return math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (26 * n**2))
