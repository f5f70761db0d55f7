"""Scrambled Sobol points: as blind as random draws, but spread evenly.

Sobol, On the distribution of points in a cube and the approximate evaluation of integrals (1967); scrambling after
Matousek, On the L2-discrepancy for anchored boxes (1998), as in SciPy.

The k-th candidate's structure (method, layout) is that under the k-th point of the golden-ratio sequence
(k + 1/2) phi mod 1, each structure owning an equal share; within one its points are a Sobol sequence without gaps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna

from core.catalog import StrategyInfo
from core.params import Scalar
from core.space import SearchSpace
from search.history import History
from search.sobol import spread_point
from search.strategy import Strategy
from search.unit import Cubes
from search.vector import VectorSampler


class SobolSampler(VectorSampler):
    """A pure function of the study's seed and the trial's number."""

    def __init__(self, seed: int, space: SearchSpace) -> None:
        super().__init__(seed, space)
        self._structures = Cubes(space).structures

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        cube, point = spread_point(self.study_seed, self._structures, number)
        return self._structures[cube].decode(point)


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A Sobol sampler; it needs no history."""
    return SobolSampler(seed, space)


STRATEGY = Strategy(info=StrategyInfo(name="sobol", summary="Scrambled Sobol points, evenly spread."), make=make)
