"""Scrambled Sobol points (Owen scrambling of a linear matrix, as SciPy's), one sequence per cube of a study."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from search.seeding import entropy

Floats = NDArray[np.float64]

#: Points drawn at a time; a power of two, so that every block is balanced.
BLOCK = 64


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
