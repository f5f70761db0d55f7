"""Multivariate tree-structured Parzen estimator, group by group.

Bergstra et al., Algorithms for Hyper-Parameter Optimization (NeurIPS 2011); the multivariate form is from Falkner et
al., BOHB (ICML 2018); both as implemented by Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution

from core.catalog import StrategyInfo
from core.records import TrialRecord
from core.space import SearchSpace
from search.seeding import SeededPerTrial
from search.strategy import Strategy


class ParzenSampler(SeededPerTrial, optuna.samplers.TPESampler):
    def __init__(self, seed: int, *, conditional: bool, startup: int = 10) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            super().__init__(seed=0, multivariate=True, group=conditional, constant_liar=True, n_startup_trials=startup)
        self.study_seed = seed

    def generators(self) -> tuple[np.random.RandomState, ...]:
        return (self._rng.rng, self._random_sampler._rng.rng)

    def infer_relative_search_space(self, study, trial) -> dict[str, BaseDistribution]:
        found = super().infer_relative_search_space(study, trial)
        if self._search_space_group is not None:
            self._search_space_group._search_spaces.sort(key=lambda group: sorted(group))
        return found


def make(
    seed: int, params: Mapping[str, Any], history: Sequence[TrialRecord], space: SearchSpace
) -> optuna.samplers.BaseSampler:
    return ParzenSampler(seed, conditional=any(hole.when for hole in space.holes))


STRATEGY = Strategy(
    info=StrategyInfo(name="tpe", summary="Optuna's multivariate tree-structured Parzen estimator."), make=make
)
