"""Random drop and rescale (DARE, arXiv 2311.03099, section 3), shared by the methods that drop entries by chance."""

from __future__ import annotations

from torch import Tensor

from core.params import ChoiceParam, FloatParam
from merging.kernels import Block, Inputs, Number
from merging.masks import below, chosen
from merging.randomness import draws, keep_mask, threshold
from merging.scalars import value
from merging.scaling import norm_ratio

RESCALE = ChoiceParam(
    name="rescale",
    default="inv_density",
    choices=("inv_density", "l1", "l2", "q", "none"),
    about="how kept entries are scaled up: by 1/density (paper), to the realised L1 norm (mergekit 0.1) or L2 norm, "
    "by 1/q (DAREx-q), or not at all",
)
Q = FloatParam(
    name="q",
    default=1.0,
    low=0.001,
    high=1.0,
    search_low=0.1,
    search_high=1.0,
    searched=False,
    scope="source",
    about="where rescale is `q`, kept entries are divided by it: from the density (DARE), which smaller ones count as, "
    "to 1 (no rescaling)",
    implied=True,
)


def key_words(inputs: Inputs) -> tuple[int, ...]:
    """The two words of every source's mask key, one source after the other, the base left out."""
    keys = [inputs.keys[position] for position in inputs.others]
    return tuple(word for key in keys for word in (key.index, key.state))


def dropping(inputs: Inputs) -> tuple[tuple[Number, ...], tuple[int, ...]]:
    """The numbers and words of `dropped`, from the parameters `density`, `rescale` and `q`."""
    densities = inputs.values("density")
    factors = [
        _factor(inputs, position, density, q)
        for position, density, q in zip(inputs.others, densities, inputs.numbers("q"), strict=True)
    ]
    return tuple(factors), (*key_words(inputs), *(int(threshold(density)) for density in densities))


def dropped(block: Block) -> list[Tensor]:
    """What is left of every task vector, scaled up; fresh.

    Args:
        block: of an indexed step, whose numbers are a weight per source and then those of `dropping`.
    """
    count = len(block.others)
    thresholds, factors = block.words[2 * count : 3 * count], block.numbers[count : 2 * count]
    return [
        chosen(delta, below(drawn(block, 2 * i), limit)).mul_(factor)
        for i, (delta, limit, factor) in enumerate(zip(block.deltas(), thresholds, factors, strict=True))
    ]


def drawn(block: Block, word: int) -> Tensor:
    """The 24-bit draws of a block's elements, where two words of a mask key begin; int32."""
    assert block.index is not None
    assert block.stretch is not None
    return draws(block.index, block.words[word] ^ block.stretch, block.words[word + 1])


def divisor(density: float, q: Number) -> Number:
    """1/q, where a q below the density counts as the density (DARE): more would be made of less."""
    return 1.0 / (q if value(q) >= density else density)


def _factor(inputs: Inputs, position: int, density: float, q: Number) -> Number:
    """The factor on the entries that are kept; 1 where there is nothing to make up for."""
    rule = str(inputs.flag("rescale"))
    if rule == "none" or not 0.0 < density < 1.0:
        return 1.0
    if rule == "inv_density":
        return 1.0 / density
    if rule == "q":
        return divisor(density, q)

    def kept(delta: Tensor, start: int, stop: int) -> Tensor:
        return delta.mul_(keep_mask(inputs.keys[position], start, stop, density, inputs.device))

    return norm_ratio(rule, inputs, position, kept)
