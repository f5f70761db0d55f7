"""Depth up-scaling: two copies of a stack, the last m layers off the first and the first m off the second.

Paper: SOLAR 10.7B (arXiv 2312.15166), section 2: n = 32 and m = 8 give 0..23 followed by 8..31.
Differs from the paper: no continued pre-training follows here.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import LayoutError
from core.params import IntParam
from core.recipe.layouts import LayoutPreset


def indices(layers: int, params: Mapping[str, int]) -> tuple[int, ...]:
    """0..n-m-1 then m..n-1.

    Raises:
        LayoutError: m leaves no layer, or removes none of the overlap.
    """
    m = params["m"]
    if not 1 <= m < layers:
        raise LayoutError(
            f"dus removes m layers with 1 <= m < {layers}, but got m={m!r}: choose a smaller m", where="m"
        )
    return (*range(layers - m), *range(m, layers))


PRESET = LayoutPreset(
    name="dus",
    summary="Depth up-scaling: 0..n-m-1, then m..n-1 (SOLAR).",
    params=(IntParam(name="m", default=8, low=1, search_low=1, search_high=16, about="layers removed from each copy"),),
    indices=indices,
)
