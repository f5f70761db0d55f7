"""Dropping the largest changes with the smallest (Breadcrumbs, arXiv 2312.06795), shared by the methods that do so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.params import ChoiceParam, FloatParam
from merging.kernels import Block, Inputs
from merging.magnitudes import Cut, changes, cut_at, largest, share, within
from merging.masks import below, chosen
from merging.ranks import row_ranks
from merging.scaling import Kept, trimmed_factor

GAMMA = FloatParam(
    name="gamma",
    default=0.01,
    low=0.0,
    high=1.0,
    search_low=0.0,
    search_high=0.1,
    searched=False,
    scope="source",
    about="share of each task vector that is dropped as too large; gives way to the density",
)
OUTLIERS = ChoiceParam(
    name="outliers",
    default="tensor",
    choices=("tensor", "row"),
    about="whether the largest and smallest are those of the tensor (mergekit) or of each row (paper's code)",
)


def middle(inputs: Inputs) -> tuple[tuple[float, ...], tuple[int, ...], tuple[Tensor, ...], dict[str, Any]]:
    """The numbers, words, fields and flags of `kept_middle`, from `density`, `gamma`, `outliers` and `rescale`."""
    rows, rescaled = inputs.flag("outliers") == "row", inputs.flag("rescale") != "none"
    numbers: list[float] = []
    words: list[int] = []
    ranks = [row_ranks(inputs, position) for position in inputs.others] if rows else []
    given = zip(inputs.others, inputs.values("density"), inputs.values("gamma"), strict=True)
    for place, (position, density, gamma) in enumerate(given):
        if rows:
            first, after = bounds(inputs.columns, density, gamma)
            words += [first, after]
            kept = _kept_ranks(ranks[place], first, after)
        else:
            first, after = bounds(inputs.elements, density, gamma)
            sizes = changes(inputs, position)
            lower, upper = cut_at(sizes, inputs.elements - first), cut_at(sizes, inputs.elements - after)
            words += [*lower.words, *upper.words]
            kept = _kept_sizes(lower, upper)
        if rescaled:
            numbers.append(trimmed_factor(inputs, position, density, kept))
    return tuple(numbers), tuple(words), tuple(ranks), {"rows": rows, "rescaled": rescaled}


def bounds(count: int, density: float, gamma: float) -> tuple[int, int]:
    """The ranks that are kept of `count`, from the smallest: the first, and the first beyond."""
    kept = share(count, density)
    top = min(int(gamma * count), count - kept)
    return count - kept - top, count - top


def kept_middle(block: Block, *, rows: bool, rescaled: bool) -> list[Tensor]:
    """What is left of every task vector, scaled up under `rescaled`; fresh.

    Args:
        block: of an indexed step, whose numbers are a weight per source and then those of `middle`.
        rows: whether ranks within rows decide, or sizes in the whole tensor.
        rescaled: whether there are factors.
    """
    count = len(block.others)
    found = []
    for place, delta in enumerate(block.deltas()):
        if rows:
            mask = _between(block.fields[place], block.words[2 * place], block.words[2 * place + 1])
        else:
            mask = within(block, delta, 4 * place) & within(block, delta, 4 * place + 2).bitwise_not_()
        part = chosen(delta, mask)
        found.append(part.mul_(block.numbers[count + place]) if rescaled else part)
    return found


def _between(ranks: Tensor, first: Tensor | int, after: Tensor | int) -> Tensor:
    ranks = ranks.to(torch.int32)
    return below(ranks, after).bitwise_and_(below(ranks, first).bitwise_not_())


def _kept_ranks(ranks: Tensor, first: int, after: int) -> Kept:
    flat = ranks.reshape(-1)
    return lambda delta, start, stop: chosen(delta, _between(flat[start:stop], first, after))


def _kept_sizes(lower: Cut, upper: Cut) -> Kept:
    def kept(delta: Tensor, start: int, stop: int) -> Tensor:
        index = torch.arange(start, stop, dtype=torch.int32, device=delta.device)
        inner, outer = (largest(delta, index, cut.bits, cut.until) for cut in (lower, upper))
        return chosen(delta, inner.bitwise_and_(outer.bitwise_not_()))

    return kept
