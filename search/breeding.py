"""Children of candidates: crossing, where two structures share what a hole is for, and mutation.

A hole's role is its name without the method or preset: `weight.a` of `merge.ties.weight.a`. Candidates of different
structures cross in the roles they share; what a child has besides comes from its first parent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.params import ChoiceParam
from core.space import Hole
from search.past import Past
from search.unit import Cubes, Structure

Floats = NDArray[np.float64]
#: Mixes two equally long vectors of coordinates into one.
Mix = Callable[[Floats, Floats, np.random.Generator], Floats]


@dataclass(frozen=True, slots=True)
class Member:
    """A candidate that may breed.

    Attributes:
        past: its trial.
        cube: index of its structure.
        point: in that cube.
    """

    past: Past
    cube: int
    point: Floats


def members(cubes: Cubes, pasts: list[Past]) -> list[Member]:
    """The scored and stopped trials that are candidates of this space."""
    told = [past for past in pasts if past.score is not None]
    located = [(past, cubes.locate(past.values)) for past in told]
    return [Member(past, *where) for past, where in located if where is not None]


def role(hole: Hole) -> tuple[str, str]:
    """What a hole is for: its kind and its name without family and method."""
    parts = hole.name.split(".", 2)
    return hole.spec.kind, parts[2] if len(parts) > 2 else hole.name


def crossed(cubes: Cubes, one: Member, other: Member, mix: Mix, rng: np.random.Generator) -> Floats:
    """(size,) a child in the cube of `one`: real and whole numbers are mixed, of choices one parent's is taken."""
    mine, theirs = cubes.structures[one.cube], cubes.structures[other.cube]
    where = {role(hole): at for at, hole in enumerate(theirs.free)}
    shared = [(at, where[role(hole)]) for at, hole in enumerate(mine.free) if role(hole) in where]
    child = one.point.copy()
    if shared:
        ours, others = (np.array(side) for side in zip(*shared, strict=True))
        mixed = mix(one.point[ours], other.point[others], rng)
        whole = np.where(rng.random(len(ours)) < 0.5, one.point[ours], other.point[others])
        choice = np.array([isinstance(mine.free[at].spec, ChoiceParam) for at in ours])
        child[ours] = np.where(choice, whole, mixed)
    return np.clip(child, 0.0, 1.0)


def mutated(structure: Structure, point: Floats, rng: np.random.Generator, *, share: float, step: float) -> Floats:
    """(size,) a copy in which about `share` of the coordinates, and at least one, were moved.

    Args:
        share: of the coordinates.
        step: standard deviation of a move; a whole number or a choice is drawn afresh.
    """
    if not structure.size:
        return point
    chosen = rng.random(structure.size) < share
    chosen[rng.integers(structure.size)] = True
    normal, fresh = rng.standard_normal(structure.size), rng.random(structure.size)
    moved = np.where(structure.continuous, _reflected(point + step * normal), fresh)
    return np.where(chosen, moved, point)


def _reflected(points: Floats) -> Floats:
    """Coordinates beyond a border come back by as much."""
    folded = np.abs(points) % 2
    return np.asarray(np.where(folded > 1, 2 - folded, folded))
