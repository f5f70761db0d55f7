"""From holes to Optuna: distributions, define-by-run suggestion in hole order, and plain uniform draws."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from core.params import ChoiceParam, IntParam, ParamSpec, Scalar
from core.space import Hole, SearchSpace
from search.seeding import entropy


def distribution(spec: ParamSpec) -> BaseDistribution:
    """The searched interval, or the choices, as Optuna calls them."""
    if isinstance(spec, ChoiceParam):
        return CategoricalDistribution(spec.choices)
    if isinstance(spec, IntParam):
        return IntDistribution(spec.search_low, spec.search_high, log=spec.log)
    return FloatDistribution(spec.search_low, spec.search_high, log=spec.log)


def recorded(hole: Hole) -> BaseDistribution:
    """The same as a study keeps it: the choices of one parameter must never change, though some may be closed."""
    return CategoricalDistribution(hole.every) if hole.every else distribution(hole.spec)


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Scalar]:
    """Values for the active holes, asked for in hole order, so that conditions are decided before what they guard."""
    values: dict[str, Scalar] = {}
    for hole in space.holes:
        if hole.active(values):
            values[hole.name] = _ask(trial, hole)
    return values


def _ask(trial: optuna.Trial, hole: Hole) -> Scalar:
    value: Scalar
    name, spec = hole.name, hole.spec
    if isinstance(spec, ChoiceParam):
        value = trial.suggest_categorical(name, hole.every or spec.choices)
    elif isinstance(spec, IntParam):
        value = trial.suggest_int(name, spec.search_low, spec.search_high, log=spec.log)
    else:
        value = trial.suggest_float(name, spec.search_low, spec.search_high, log=spec.log)
    return value


def distributions(space: SearchSpace, values: Mapping[str, Scalar]) -> dict[str, BaseDistribution]:
    """The distribution of every active hole, as a study keeps it."""
    return {hole.name: recorded(hole) for hole in space.active(values)}


def draw(space: SearchSpace, seed: int, number: int) -> dict[str, Scalar]:
    """Uniform values, keyed like a sampler's draws, for when a sampler keeps repeating itself."""
    source, values = random.Random(repr(entropy(seed, number))), dict[str, Scalar]()
    for hole in space.holes:
        if hole.active(values):
            values[hole.name] = _draw(source, hole.spec)
    return values


def _draw(source: random.Random, spec: ParamSpec) -> Scalar:
    if isinstance(spec, ChoiceParam):
        return source.choice(spec.choices)
    if isinstance(spec, IntParam):
        return source.randint(spec.search_low, spec.search_high)
    if spec.log:
        drawn = math.exp(source.uniform(math.log(spec.search_low), math.log(spec.search_high)))
        return min(max(drawn, spec.search_low), spec.search_high)
    return source.uniform(spec.search_low, spec.search_high)
