"""One block of layers several times in a row.

For n = 6, stop = 4, count = 2, times = 2: 0, 1, 2, 3, 2, 3, 4, 5.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import LayoutError
from core.params import IntParam
from core.recipe.layouts import LayoutPreset


def indices(layers: int, params: Mapping[str, int]) -> tuple[int, ...]:
    """0..stop-1, then layers stop-count..stop-1 again until they stand there `times` times, then stop..n-1.

    A block longer than what lies below `stop` begins at layer 0.

    Raises:
        LayoutError: the stack ends below `stop`.
    """
    stop, count, times = params["stop"], params["count"], params["times"]
    if stop > layers:
        raise LayoutError(
            f"repeat needs 1 <= stop <= {layers}, but got stop={stop!r}: choose a smaller stop", where="stop"
        )
    block = range(max(0, stop - count), stop)
    return (*range(block.start), *block, *(tuple(block) * (times - 1)), *range(stop, layers))


PRESET = LayoutPreset(
    name="repeat",
    summary="One block of layers several times in a row.",
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
        IntParam(name="count", default=4, low=1, search_low=1, search_high=16, about="layers of the block"),
        IntParam(
            name="times",
            default=2,
            low=2,
            high=16,
            search_low=2,
            search_high=3,
            depth_share=1.0,
            about="how often the block stands there",
        ),
    ),
    indices=indices,
)
