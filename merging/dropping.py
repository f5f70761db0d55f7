"""Random drop and rescale (DARE, arXiv 2311.03099, section 3), shared by the methods that drop entries by chance."""

from __future__ import annotations

from torch import Tensor

from core.params import ChoiceParam
from merging.kernels import Inputs
from merging.randomness import keep_mask
from merging.reductions import ordered_sum

RESCALE = ChoiceParam(
    name="rescale",
    default="inv_density",
    choices=("inv_density", "l1", "none"),
    about="how kept entries are scaled up: 1/density (paper) or to the realised L1 norm (mergekit 0.1)",
)


def word_pairs(inputs: Inputs) -> tuple[int, ...]:
    """The two words of every source's mask key, one source after the other, the base left out."""
    keys = [inputs.keys[position] for position in inputs.others]
    return tuple(word for key in keys for word in (key.index, key.state))


def rescale_factor(rule: str, inputs: Inputs, position: int, density: float) -> float:
    """The factor on the entries that are kept; 1 where there is nothing to make up for."""
    if rule == "none" or not 0.0 < density < 1.0:
        return 1.0
    if rule == "inv_density":
        return 1.0 / density

    def size(start: int, stop: int) -> Tensor:
        return inputs.delta(position, start, stop).double().abs_()

    def kept(start: int, stop: int) -> Tensor:
        return size(start, stop).mul_(keep_mask(inputs.keys[position], start, stop, density, inputs.device))

    before, after = ordered_sum(inputs.elements, size), ordered_sum(inputs.elements, kept)
    return before / after if after else 1.0
