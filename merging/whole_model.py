"""The cut of a whole model: which elements are among the largest of all that a source changes in a candidate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from merging.kernels import Inputs, Pool
from merging.magnitudes import (
    EVERYTHING,
    LOW_BITS,
    NOTHING,
    Cut,
    Sizes,
    change_sizes,
    counts,
    counts_within,
    place_of,
    rank_within,
    share,
)


def model_cut(inputs: Inputs, position: int, density: float) -> Cut:
    """The cut of this tensor that keeps the k = max(1, int(density * n)) largest changes of the model's n.

    Equal ones are kept in the order of the tensors, then of their index. It is taken once per pool and k.
    """
    pool = inputs.pools[position]
    assert pool is not None
    assert inputs.base is not None
    places, total = inputs.statistics.number(("places", pool.key), lambda: _places(pool))
    count = share(total, density)
    if not 0 < count < total:
        return EVERYTHING if count else NOTHING
    key = ("model cut", pool.key, count)
    bits, last, until = inputs.statistics.number(key, lambda: _boundary(inputs, pool, count))
    place = places[inputs.content[position], inputs.content[inputs.base]]
    return Cut(bits, until if place == last else inputs.elements if place < last else 0)


def _places(pool: Pool) -> tuple[dict[tuple[str, str], int], int]:
    """Where each tensor stands in the pool, and the elements of all."""
    members = list(pool.members())
    return {each.content: place for place, each in enumerate(members)}, sum(each.elements for each in members)


def _boundary(inputs: Inputs, pool: Pool, count: int) -> tuple[int, int, int]:
    """The size of the last element that is kept, the place of its tensor, and the index after it there."""
    tops = np.zeros(1 << 31 - LOW_BITS, dtype=np.int64)
    for sizes in _sizes(inputs, pool):
        tops += counts(sizes)
    top, left = rank_within(tops, count)
    lows, equal = np.zeros(1 << LOW_BITS, dtype=np.int64), []
    for sizes in _sizes(inputs, pool):
        equal.append(counts_within(sizes, top))
        np.add.at(lows, *equal[-1])
    low, left = rank_within(lows, left)
    for place, (sizes, (values, numbers)) in enumerate(zip(_sizes(inputs, pool), equal, strict=True)):
        here = int(numbers[values == low].sum())
        if left <= here:
            bits = top << LOW_BITS | low
            return bits, place, sizes.elements if left == here else place_of(sizes, bits, left) + 1
        left -= here
    raise AssertionError("fewer elements than were counted")


def _sizes(inputs: Inputs, pool: Pool) -> Iterator[Sizes]:
    """Of every tensor of the pool; read where they are asked for."""
    for each in pool.members():
        yield change_sizes(each.load, each.content, each.elements, inputs.device, inputs.statistics)
