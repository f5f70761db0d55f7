"""The registry of search strategies: every module here has a STRATEGY. Scanned in sorted order."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import optuna

from core.errors import UnknownStrategyError
from core.space import SearchSpace
from search.history import EMPTY, History
from search.strategy import Strategy


@cache
def strategies() -> dict[str, Strategy]:
    """All strategies by name, sorted.

    Raises:
        ValueError: two modules claim one name.
    """
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return collect(importlib.import_module(f"{__name__}.{module}").STRATEGY for module in modules)


def collect(found: Iterable[Strategy]) -> dict[str, Strategy]:
    """Strategies by name, sorted; a name taken twice is refused."""
    named: dict[str, Strategy] = {}
    for strategy in found:
        if strategy.info.name in named:
            raise ValueError(f"two strategies are called {strategy.info.name!r}: rename one")
        named[strategy.info.name] = strategy
    return dict(sorted(named.items()))


def strategy(name: str) -> Strategy:
    """The strategy of that name, or UnknownStrategyError with suggestions."""
    if name not in strategies():
        raise UnknownStrategyError.suggest(name, strategies(), where="strategy")
    return strategies()[name]


def make_sampler(
    name: str,
    space: SearchSpace,
    *,
    seed: int,
    params: Mapping[str, Any] | None = None,
    history: History = EMPTY,
) -> optuna.samplers.BaseSampler:
    """The sampler of a strategy, its parameters checked and their defaults filled.

    Raises:
        UnknownStrategyError, UnknownNameError, InvalidInputError: no such strategy or parameter, or a value out of
        bounds.
    """
    chosen = strategy(name)
    return chosen.make(seed, chosen.info.filled(params or {}), history, space)
