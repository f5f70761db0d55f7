"""What makes up for the entries of a task vector that were dropped: a factor on those that were kept."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from core.params import ChoiceParam
from merging.kernels import Inputs
from merging.reductions import ordered_sum

#: Rescaling where what is dropped is chosen by its size, so that there is little to make up for.
RESCALE_TRIMMED = ChoiceParam(
    name="rescale",
    default="none",
    choices=("none", "l1", "l2", "inv_density"),
    about="how kept entries are scaled up: not at all (papers), to the realised L1 norm (mergekit) or L2 norm, or by "
    "1/density",
    implied=True,
)
#: What is left of stretches of a task vector: of the delta, from its start to its stop; may write into the delta.
Kept = Callable[[Tensor, int, int], Tensor]


def trimmed_factor(inputs: Inputs, position: int, density: float, kept: Kept) -> float:
    """The factor that `RESCALE_TRIMMED` asks for."""
    rule = str(inputs.flag("rescale"))
    if rule == "none" or not 0.0 < density < 1.0:
        return 1.0
    return 1.0 / density if rule == "inv_density" else norm_ratio(rule, inputs, position, kept)


def norm_ratio(rule: str, inputs: Inputs, position: int, kept: Kept) -> float:
    """The norm (`l1` or `l2`) of a task vector by the norm of what is kept; 1 where nothing is."""

    def size(part: Tensor) -> Tensor:
        wide = part.double()
        return wide.abs_() if rule == "l1" else wide.square_()

    def before() -> float:
        return ordered_sum(inputs.elements, lambda start, stop: size(inputs.delta(position, start, stop)))

    def after(start: int, stop: int) -> Tensor:
        return size(kept(inputs.delta(position, start, stop), start, stop))

    assert inputs.base is not None
    key = ("size", rule, inputs.content[position], inputs.content[inputs.base])
    whole, rest = float(inputs.statistics.number(key, before)), ordered_sum(inputs.elements, after)
    if rest == 0.0:
        return 1.0
    return whole / rest if rule == "l1" else math.sqrt(whole / rest)
