"""The iDUS study's stack of single layers in turn: 32 layers become 0, 8, 1, 9, ..., 23, 31.

At chance level without training: a negative control. Other depths keep the proportion.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.recipe.layouts import LayoutPreset, idus
from core.recipe.layouts.solar import quarter


def indices(layers: int, _: Mapping[str, int]) -> tuple[int, ...]:
    """0, n/4, 1, n/4+1, ..., 3n/4-1, n-1.

    Raises:
        LayoutError: the depth is no multiple of 4.
    """
    return idus.indices(layers, {"m": quarter("idus-1", layers), "block": 1})


PRESET = LayoutPreset(
    name="idus-1",
    summary="iDUS with single layers in turn: 32 layers become 0, 8, 1, 9, ..., 31; other depths keep the quarters.",
    params=(),
    indices=indices,
)
