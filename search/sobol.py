"""Scrambled Sobol points (Owen scrambling of a linear matrix, as SciPy's), one sequence per cube of a study."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from search.seeding import entropy
from search.unit import Structure

Floats = NDArray[np.float64]

#: Points drawn at a time; a power of two, so that every block is balanced.
BLOCK = 64
GOLDEN = (5**0.5 - 1) / 2


def spread_point(seed: int, structures: Sequence[Structure], number: int) -> tuple[int, Floats]:
    """Structure and point of the `number`-th of a study's evenly spread candidates.

    The structure is the one under the golden-ratio sequence (number + 1/2) phi mod 1, each owning an equal share;
    within a structure the points are a Sobol sequence without gaps.
    """
    turns = ((np.arange(number + 1) + 0.5) * GOLDEN % 1 * len(structures)).astype(int)
    cube = int(turns[-1])
    return cube, sobol_point(seed, cube, structures[cube].size, int(np.sum(turns[:-1] == cube)))


def sobol_point(seed: int, cube: int, size: int, index: int) -> Floats:
    """(size,) the `index`-th point of the sequence that a study's seed gives to a cube."""
    block, at = divmod(index, BLOCK)
    return np.asarray(_block(seed, cube, size, block)[at])


@lru_cache(maxsize=256)
def _block(seed: int, cube: int, size: int, block: int) -> Floats:
    if size == 0:
        return np.empty((BLOCK, 0))
    sequence = qmc.Sobol(size, rng=np.random.default_rng([*entropy(seed, -1), cube]))
    if block:
        sequence.fast_forward(block * BLOCK)
    points: Floats = sequence.random(BLOCK)
    return points


def cover(size: int, count: int, rng: np.random.Generator) -> Floats:
    """(count, size) a freshly scrambled set of points; `count` is a power of two."""
    if size == 0:
        return np.empty((count, 0))
    points: Floats = qmc.Sobol(size, rng=rng).random(count)
    return points
