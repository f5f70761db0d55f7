"""Samplers that choose all values of a candidate at once, in spaces where one value decides which others exist."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from core.params import Scalar
from core.space import SearchSpace
from search.seeding import SeededPerTrial, entropy


class VectorSampler(SeededPerTrial, optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Asks `choose` once per trial, when the first value is wanted; never for values that were enqueued.

    Args:
        seed: the study's seed.
        space: the compiled search space.
    """

    def __init__(self, seed: int, space: SearchSpace) -> None:
        self.study_seed = seed
        self.space = space
        self._chosen: Mapping[str, Scalar] | None = None

    @abstractmethod
    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        """Values for every active hole.

        Args:
            study: with all trials so far; the one that is asked for is among them, running and without values.
            number: of that one.
            rng: seeded by the study's seed and that number; the only source of chance.
        """

    def generators(self) -> tuple[np.random.RandomState, ...]:
        return ()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        super().before_trial(study, trial)
        self._chosen = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._chosen is None:
            rng = np.random.default_rng(entropy(self.study_seed, trial.number))
            self._chosen = self.choose(study, trial.number, rng)
        return self._chosen[param_name]
