"""SOLAR 10.7B's own stack: `dus` with a quarter of the layers off each copy.

Paper: SOLAR 10.7B (arXiv 2312.15166), section 2: 32 layers become 0..23, 8..31.
Differs from the paper: no continued pre-training follows here; other depths keep the proportion.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import LayoutError
from core.recipe.layouts import LayoutPreset, dus


def quarter(name: str, layers: int) -> int:
    """A quarter of the layers, which is 8 for 32.

    Raises:
        LayoutError: they have no quarter.
    """
    if layers % 4:
        raise LayoutError(
            f"{name!r} cuts a stack into quarters, but {layers} layers have none: use dus or idus with your own m",
            where="preset",
        )
    return layers // 4


def indices(layers: int, _: Mapping[str, int]) -> tuple[int, ...]:
    """0..3n/4-1, then n/4..n-1.

    Raises:
        LayoutError: the depth is no multiple of 4.
    """
    return dus.indices(layers, {"m": quarter("solar-10.7b", layers)})


PRESET = LayoutPreset(
    name="solar-10.7b",
    summary="SOLAR's stack: 32 layers become 0..23, 8..31; other depths keep the quarters.",
    params=(),
    indices=indices,
)
