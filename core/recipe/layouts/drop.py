"""A stack without some of its layers.

For n = 6: stop = 5, count = 2 leaves 0, 1, 2, 5; layers = [1, 4] leaves 0, 2, 3, 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import LayoutError
from core.params import IntParam, LayersParam
from core.recipe.layouts import LayoutPreset


def indices(layers: int, params: Mapping[str, Any]) -> tuple[int, ...]:
    """All layers but stop-count..stop-1, or but `layers` where they are listed.

    A block longer than what lies below `stop` begins at layer 0.

    Raises:
        LayoutError: the stack ends below `stop`, or no layer is left.
    """
    listed, stop = params.get("layers"), params["stop"]
    if listed is None and stop > layers:
        raise LayoutError(
            f"drop needs 1 <= stop <= {layers}, but got stop={stop!r}: choose a smaller stop", where="stop"
        )
    gone = range(stop - params["count"], stop) if listed is None else frozenset(listed)
    left = tuple(layer for layer in range(layers) if layer not in gone)
    if not left:
        raise LayoutError(f"drop must leave a layer, but removes all {layers}: remove less", where="layers")
    return left


PRESET = LayoutPreset(
    name="drop",
    summary="A stack without a block of layers, or without the layers in a list.",
    params=(
        IntParam(
            name="stop",
            default=8,
            low=1,
            search_low=1,
            search_high=4096,
            depth_share=1.0,
            about="the layer behind the block",
        ),
        IntParam(name="count", default=1, low=1, search_low=1, search_high=16, about="layers removed"),
    ),
    lists=(LayersParam(name="layers", about="the layers removed, instead of the block"),),
    indices=indices,
)
