"""Samplers over a space of which a part is closed for now: of a choice they see what is open.

A study keeps all choices of a parameter from its first trial on, as their number must not change. A sampler is made
over the open part alone, where the closed choices do not exist; what stands between the two is this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from core.space import SearchSpace
from search.suggest import distribution


class OpenChoices(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Another sampler, asked for a choice among those that are open.

    Args:
        sampler: made over the same space.
        space: of which a part is closed.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler, space: SearchSpace) -> None:
        self._sampler = sampler
        self._open = {hole.name: distribution(hole.spec) for hole in space.holes if hole.every}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: OptunaState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution] = self._sampler.infer_relative_search_space(study, trial)
        return found

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        found: dict[str, Any] = self._sampler.sample_relative(study, trial, search_space)
        return found

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        among = self._open.get(param_name, param_distribution)
        if among.single():
            return among.choices[0]
        return self._sampler.sample_independent(study, trial, param_name, among)


def opened(sampler: optuna.samplers.BaseSampler, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """The sampler as a study over the space may use it."""
    return OpenChoices(sampler, space) if any(hole.every for hole in space.holes) else sampler
