"""What a search strategy is: a catalogue entry and a maker of an Optuna sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna

from core.catalog import StrategyInfo
from core.records import TrialRecord
from core.space import SearchSpace


class Make(Protocol):
    """Builds the sampler.

    Args:
        seed: the study's seed.
        params: values of the strategy's parameters, checked, defaults filled.
        history: read-only records of the job's candidates, for what a sampler needs beyond values (standard errors,
            items, outcomes); kept current by whoever passes it.
        space: the compiled search space.
    """

    def __call__(
        self, seed: int, params: Mapping[str, Any], history: Sequence[TrialRecord], space: SearchSpace
    ) -> optuna.samplers.BaseSampler: ...


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered strategy; every module of `search.strategies` has one, called STRATEGY."""

    info: StrategyInfo
    make: Make
