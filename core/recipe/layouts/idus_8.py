"""The iDUS study's stack of eight layers in turn: 32 layers become 0..7, 8..15 twice, 16..23 twice, 24..31.

Other depths keep the proportion: each of the two middle quarters stands there twice in a row.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.recipe.layouts import LayoutPreset, idus
from core.recipe.layouts.solar import quarter


def indices(layers: int, _: Mapping[str, int]) -> tuple[int, ...]:
    """The first quarter, the second twice, the third twice, the last.

    Raises:
        LayoutError: the depth is no multiple of 4.
    """
    length = quarter("idus-8", layers)
    return idus.indices(layers, {"m": length, "block": length})


PRESET = LayoutPreset(
    name="idus-8",
    summary="iDUS with blocks of 8 of 32 layers: each middle block twice in a row; other depths keep the quarters.",
    params=(),
    indices=indices,
)
