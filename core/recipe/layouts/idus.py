"""Interlocked depth up-scaling: the two copies of DUS interleaved in blocks instead of stacked.

For n = 32, m = 8: block 1 gives 0, 8, 1, 9, ..., 23, 31; block 8 gives 0..7, 8..15, 8..15, 16..23, 16..23, 24..31.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import LayoutError
from core.params import IntParam
from core.recipe.layouts import LayoutPreset


def indices(layers: int, params: Mapping[str, int]) -> tuple[int, ...]:
    """Blocks of `block` layers, alternately from 0..n-m-1 and from m..n-1 (the last block may be shorter).

    Raises:
        LayoutError: m or the block size does not fit the stack.
    """
    m, block = params["m"], params["block"]
    if not 1 <= m < layers:
        raise LayoutError(f"idus needs 1 <= m < {layers}, but got m={m!r}: choose a smaller m", where="m")
    length = layers - m
    if not 1 <= block <= length:
        raise LayoutError(
            f"idus needs 1 <= block <= {length}, but got block={block!r}: choose a smaller block", where="block"
        )
    first, second = range(length), range(m, layers)
    starts = range(0, length, block)
    return tuple(i for start in starts for copy in (first, second) for i in copy[start : start + block])


PRESET = LayoutPreset(
    name="idus",
    summary="Interlocked depth up-scaling: blocks of the two DUS copies in turn.",
    params=(
        IntParam(name="m", default=8, low=1, search_low=1, search_high=16, about="layers removed from each copy"),
        IntParam(name="block", default=8, low=1, search_low=1, search_high=8, about="layers per block"),
    ),
    indices=indices,
)
