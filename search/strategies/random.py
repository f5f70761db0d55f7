"""Independent uniform draws: the honest baseline, and the sane choice where almost everything fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna

from core.catalog import StrategyInfo
from core.space import SearchSpace
from search.history import History
from search.seeding import SeededPerTrial
from search.strategy import Strategy


class UniformSampler(SeededPerTrial, optuna.samplers.RandomSampler):  # type: ignore[misc]
    """Optuna's random sampler, seeded per trial."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=0)
        self.study_seed = seed

    def generators(self) -> tuple[np.random.RandomState, ...]:
        return (self._rng.rng,)


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A uniform sampler."""
    return UniformSampler(seed)


STRATEGY = Strategy(info=StrategyInfo(name="random", summary="Independent uniform draws."), make=make)
