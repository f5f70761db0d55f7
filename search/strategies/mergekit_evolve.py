"""The baseline: what `mergekit-evolve` (mergekit 0.1) does, candidate by candidate.

CMA-ES as `cma.fmin2` runs it by default (see `search.evolution`), from x0 = 1/n for the weights of n models and 1 for
densities, with sigma0 = 1/6 and 4 + floor(3 ln d) candidates a generation. The genome is not bounded: a weight is the
genome's absolute value, a density that clipped to at most 1. Every candidate is scored on every item, the fitness is
the plain accuracy, and the best value ever seen wins, with whatever luck is in it.

Differs from the tool:

- It has one method per run. Over a space with several structures each has a run of its own, and they take turns.
- Weights are clipped to the searched interval (the tool knows no upper bound), and may be negative only where that is.
- The tool searches five methods' weights, densities, and t by way of scores of the models; any other parameter is a
  genome in units of its interval, from the parameter's default, clipped. Of k choices each has a genome, from 1/k, and
  the highest is taken, as the tool takes the two models of a slerp.
- The normal numbers come from the study's seed and the trial's number instead of one stream; nothing ends the run
  early (the tool stops at flat fitness), and the last mean is not scored in addition.
- The tool waits at the end of a generation. Here whoever asks too early gets a further draw of the same generation,
  which can win but teaches nothing (see `search.replay`). With one worker there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from core.catalog import StrategyInfo
from core.params import ChoiceParam, IntParam, Scalar
from core.space import Hole, SearchSpace
from search.evolution import Evolution
from search.history import History
from search.past import past
from search.replay import normals, replay
from search.strategy import Strategy
from search.unit import Cubes, Structure
from search.vector import VectorSampler

Floats = NDArray[np.float64]
SIGMA = 1 / 6


class Genome:
    """One structure's genome, and its run.

    Args:
        structure: the cube whose holes are searched.
        uniform: values of its uniform merge, for x0; empty for a layout.
        seed: the study's.
    """

    def __init__(self, structure: Structure, uniform: Mapping[str, Scalar], seed: int) -> None:
        self._structure, self._seed = structure, seed
        self._genes = [_first(hole, uniform) for hole in structure.free]
        self.start = Evolution.start(np.concatenate(self._genes), SIGMA) if self._genes else None

    def values(self, genome: Floats) -> dict[str, Scalar]:
        """The candidate that a genome stands for."""
        ends = np.cumsum([len(genes) for genes in self._genes])
        parts = np.split(genome, ends[:-1])
        free = {hole.name: _value(hole, part) for hole, part in zip(self._structure.free, parts, strict=True)}
        return {name: free[name] if name in free else self._structure.fixed[name] for name in self._structure.names}

    def size(self, state: Evolution) -> int:
        return state.size

    def draw(self, state: Evolution, number: int) -> dict[str, Scalar]:
        return self.values(self._point(state, number))

    def after(self, state: Evolution, members: list[int], losses: list[float]) -> Evolution:
        return state.after(np.array([self._point(state, number) for number in members]), np.array(losses))

    def _point(self, state: Evolution, number: int) -> Floats:
        return state.point(normals(self._seed, number, len(state.mean)))


def _first(hole: Hole, uniform: Mapping[str, Scalar]) -> Floats:
    """The genes of a hole at x0."""
    spec = hole.spec
    if isinstance(spec, ChoiceParam):
        return np.full(len(spec.choices), 1 / len(spec.choices))
    if spec.name == "density":
        return np.ones(1)
    if spec.name == "weight":
        return np.array([float(uniform.get(hole.name, spec.default))])
    return np.array([(spec.default - spec.search_low) / (spec.search_high - spec.search_low)])


def _value(hole: Hole, genes: Floats) -> Scalar:
    spec = hole.spec
    if isinstance(spec, ChoiceParam):
        return spec.choices[int(genes.argmax())]
    low, high, gene = spec.search_low, spec.search_high, float(genes[0])
    own = spec.name in ("weight", "density")
    raw = (gene if low < 0 else abs(gene)) if own else low + gene * (high - low)
    value = min(max(raw, low), high)
    return round(value) if isinstance(spec, IntParam) else float(value)


class EvolveSampler(VectorSampler):
    """A CMA-ES run per structure."""

    def __init__(self, seed: int, space: SearchSpace) -> None:
        super().__init__(seed, space)
        self._cubes = Cubes(space)
        uniform = {self._where(values): values for recipe in space.uniform() for values in [space.read(recipe)]}
        structures = self._cubes.structures
        self._runs = [Genome(structure, uniform.get(at, {}), seed) for at, structure in enumerate(structures)]

    def _where(self, values: Mapping[str, Scalar]) -> int:
        found = self._cubes.locate(values)
        return -1 if found is None else found[0]

    def choose(self, study: optuna.Study, number: int, rng: np.random.Generator) -> Mapping[str, Scalar]:
        turn = number % len(self._runs)
        run, structure = self._runs[turn], self._cubes.structures[turn]
        if run.start is None:
            return structure.decode(np.empty(0))
        mine = [trial for trial in past(study) if trial.number < number and trial.number % len(self._runs) == turn]
        return run.draw(replay(run, run.start, mine, self.space), number)


def make(seed: int, params: Mapping[str, Any], history: History, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """A sampler that does as mergekit-evolve does."""
    return EvolveSampler(seed, space)


STRATEGY = Strategy(
    info=StrategyInfo(
        name="mergekit-evolve",
        summary="mergekit-evolve's CMA-ES: every candidate on every item, the best score ever seen wins.",
        starts=False,
        races=False,
        hears="accuracy",
        recommends="best",
    ),
    make=make,
)
