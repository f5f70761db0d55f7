"""All layers of a stack in another order.

For n = 4, order = [0, 2, 1, 3]: the middle layers change places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import LayoutError
from core.params import LayersParam
from core.recipe.layouts import LayoutPreset


def indices(layers: int, params: Mapping[str, Any]) -> tuple[int, ...]:
    """`order` itself.

    Raises:
        LayoutError: a layer is missing, or named twice.
    """
    order: tuple[int, ...] = params["order"]
    if sorted(order) != list(range(layers)):
        odd = next(layer for layer in range(layers) if order.count(layer) != 1)
        raise LayoutError(
            f"permute names each of {layers} layers once, but layer {odd} is there {order.count(odd)} times: "
            "use slices to repeat or to leave out",
            where="order",
        )
    return order


PRESET = LayoutPreset(
    name="permute",
    summary="All layers in another order.",
    params=(),
    lists=(LayersParam(name="order", required=True, about="every layer once, in the new order"),),
    indices=indices,
)
