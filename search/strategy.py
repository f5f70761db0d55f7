"""What a search strategy is: a catalogue entry and a maker of an Optuna sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import optuna

from core.catalog import StrategyInfo
from core.space import SearchSpace
from search.history import History


class Goal(NamedTuple):
    """One objective of a study; `score` is the macro mean, any other name what the strategy's page says."""

    name: str
    direction: Literal["maximize", "minimize"] = "maximize"


#: The usual study: one objective.
SCORE = (Goal("score"),)


class Make(Protocol):
    """Builds the sampler.

    Args:
        seed: the study's seed.
        params: values of the strategy's parameters, checked, defaults filled.
        history: what is known of the job's candidates beyond values, for samplers that need it; kept current by
            whoever passes it. Scores with their variance are in Optuna's trials too, see `search.past`.
        space: the compiled search space.
    """

    def __call__(
        self, seed: int, params: Mapping[str, Any], history: History, space: SearchSpace
    ) -> optuna.samplers.BaseSampler: ...


def _one_goal(params: Mapping[str, Any], tasks: Sequence[str]) -> tuple[Goal, ...]:
    return SCORE


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered strategy; every module of `search.strategies` has one, called STRATEGY.

    Attributes:
        info: the catalogue entry.
        make: builds the sampler.
        goals: the study's objectives, from the strategy's parameters and the names of the objective's tasks.
    """

    info: StrategyInfo
    make: Make
    goals: Callable[[Mapping[str, Any], Sequence[str]], tuple[Goal, ...]] = _one_goal
