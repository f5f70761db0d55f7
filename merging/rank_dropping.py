"""Random drop by rank (DELLA, arXiv 2406.11617, section 3), shared by the methods that keep large changes longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from core.params import ChoiceParam, FloatParam
from merging.dropping import drawn, key_words
from merging.kernels import Block, Inputs
from merging.masks import below, chosen
from merging.randomness import hash24
from merging.ranks import row_ranks
from merging.scaling import norm_ratio

EPSILON = FloatParam(
    name="epsilon",
    default=0.15,
    low=0.0,
    high=0.5,
    search_low=0.0,
    search_high=0.3,
    searched=False,
    scope="source",
    about="how far the chance of being kept lies below the density for the smallest of a row, above for the largest",
)
RESCALE_RANKED = ChoiceParam(
    name="rescale",
    default="inv_density",
    choices=("inv_density", "l1", "l2", "none"),
    about="how kept entries are scaled up: each by 1/its chance (paper), to the realised L1 norm (mergekit 0.1) or L2 "
    "norm, or not at all",
)
#: Draws are whole numbers below this, and so are chances counted.
UNIT = float(1 << 24)


def dropping_by_rank(inputs: Inputs) -> tuple[tuple[float, ...], tuple[int, ...], tuple[Tensor, ...], dict[str, Any]]:
    """The numbers, words, fields and flags of `dropped_by_rank`, from `density`, `epsilon` and `rescale`."""
    rule = str(inputs.flag("rescale"))
    ranks = [row_ranks(inputs, position) for position in inputs.others]
    lines = [
        chance_line(density, epsilon, inputs.columns)
        for density, epsilon in zip(inputs.values("density"), inputs.values("epsilon"), strict=True)
    ]
    numbers = [number for line in lines for number in line]
    if realised := rule in ("l1", "l2"):
        sources = zip(inputs.others, ranks, lines, strict=True)
        numbers += [_realised(rule, inputs, position, own, line) for position, own, line in sources]
    return tuple(numbers), key_words(inputs), tuple(ranks), {"each": rule == "inv_density", "realised": realised}


def growth(numbers: Sequence[float], flags: Mapping[str, Any]) -> float:
    """How many times larger `dropped_by_rank` makes an entry at most."""
    realised = max(numbers[len(numbers) // 3 * 2 :]) if flags["realised"] else 1.0
    return UNIT * realised if flags["each"] else realised


def chance_line(density: float, epsilon: float, columns: int) -> tuple[float, float]:
    """The chance of the smallest of a row, and what each rank adds to it, in units of 2^-24."""
    # What the density leaves room for: so the mean is the density, and a chance never falls where the density rises.
    reach = min(epsilon, density, 1.0 - density) if columns > 1 else 0.0
    return (density - reach) * UNIT, 2.0 * reach * UNIT / max(columns - 1, 1)


def dropped_by_rank(block: Block, *, each: bool, realised: bool) -> list[Tensor]:
    """What is left of every task vector, scaled up; fresh.

    Args:
        block: of an indexed step, whose numbers are a weight per source and then those of `dropping_by_rank`.
        each: whether every element is divided by its own chance.
        realised: whether there is a factor per source.
    """
    count = len(block.others)
    found = []
    for place, delta in enumerate(block.deltas()):
        first = count + 2 * place
        chance = _chances(block.fields[place], block.numbers[first], block.numbers[first + 1])
        part = chosen(delta, _below(drawn(block, 2 * place), chance))
        if each:
            # What has no chance is not there any more, so anything but 0 will do.
            part.mul_(UNIT).div_(chance.clamp_min_(1.0))
        found.append(part.mul_(block.numbers[3 * count + place]) if realised else part)
    return found


def _chances(ranks: Tensor, smallest: Tensor, step: Tensor) -> Tensor:
    return ranks.to(step.dtype).mul_(step).add_(smallest)


def _below(draws: Tensor, chances: Tensor) -> Tensor:
    """The mask of the draws that are below their chance; 24 bits are exact, and differences have the right sign."""
    if chances.dtype == torch.float32 and not chances.requires_grad:
        return (draws.to(torch.float32) - chances).view(torch.int32).bitwise_right_shift_(31)
    return below(draws, torch.ceil(chances).to(torch.int32))


def _realised(rule: str, inputs: Inputs, position: int, ranks: Tensor, line: tuple[float, float]) -> float:
    flat = ranks.reshape(-1)
    smallest, step = torch.tensor(line, dtype=torch.float32, device=inputs.device)

    def kept(delta: Tensor, start: int, stop: int) -> Tensor:
        draws = hash24(inputs.keys[position], start, stop, inputs.device)
        return chosen(delta, _below(draws, _chances(flat[start:stop], smallest, step)))

    return norm_ratio(rule, inputs, position, kept)
