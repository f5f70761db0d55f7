"""From thinned task vectors to the merged tensor: they are added up, or only what agrees in sign is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from core.params import ChoiceParam
from merging.kernels import Block, Inputs, Number, is_one, overflows_never, weighted_sum
from merging.masks import agreeing, chosen, zero_as_one
from merging.scalars import value

ELECT = ChoiceParam(
    name="elect",
    default="weighted",
    choices=("weighted", "unweighted"),
    about="whether the sign is elected on weighted task vectors (mergekit) or on plain ones (TIES paper)",
    implied=True,
)
#: Sums of weights below this are not divided by, as in mergekit.
SMALL_SUM = 1e-8


def adding(inputs: Inputs, weights: Sequence[Number]) -> tuple[tuple[Number, ...], dict[str, Any]]:
    """The last numbers and the flags of `added_up`, from the parameters `normalize` and `lambda`."""
    total, factor = sum(weights), inputs.number("lambda")
    divide = bool(inputs.flag("normalize")) and abs(value(total)) >= SMALL_SUM and not is_one(total)
    numbers = ((total,) if divide else ()) + (() if is_one(factor) else (factor,))
    return numbers, {"divide": divide, "factor": not is_one(factor)}


def added_up(block: Block, thinned: Sequence[Tensor], *, divide: bool, factor: bool) -> Tensor:
    """B + sum_i w_i S_i, the sum divided by a number under `divide` and times another under `factor`.

    Args:
        block: its first numbers are the w_i, its last the divisor and the factor, as far as they are there.
        thinned: (n,) float32 each, fresh: what is left of every task vector.
        divide, factor: which of the two there are.
    """
    total = weighted_sum(thinned, block.numbers[: len(thinned)])
    if divide:
        total.div_(block.numbers[-2 if factor else -1])
    if factor:
        total.mul_(block.numbers[-1])
    return total.add_(block.base)


def farthest(inputs: Inputs, growth: float) -> float:
    """What no result of `added_up` or `elected` exceeds but by rounding; infinite where that is not known.

    Args:
        inputs: the sources, with `weight`, `lambda` and `normalize`.
        growth: how many times larger an entry may be made before it is added up.
    """
    if not inputs.peaks:
        return math.inf
    weights, anchor = inputs.values("weight"), inputs.peaks[inputs.base or 0]
    mean = bool(inputs.flag("normalize"))
    if mean and min(weights) < 0.0:
        return math.inf
    sizes = [abs(weight) for weight in weights]
    delta = anchor + max(inputs.peaks[position] for position in inputs.others)
    factor = abs(value(inputs.number("lambda")))
    result = anchor + factor * (1.0 if mean else sum(sizes)) * growth * delta
    # What is divided by the weights is first multiplied by them.
    summed_up = sum(sizes) * max(growth, 1.0) * delta
    return result if overflows_never(*sizes, growth, delta, factor, summed_up, result) else math.inf


def electing(inputs: Inputs) -> tuple[tuple[Number, ...], dict[str, Any]]:
    """The last number and the flags of `elected`, from the parameters `elect`, `normalize` and `lambda`."""
    factor = inputs.number("lambda")
    flags = {"elect": inputs.flag("elect"), "normalize": inputs.flag("normalize"), "factor": not is_one(factor)}
    return () if is_one(factor) else (factor,), flags


def elected(block: Block, thinned: Sequence[Tensor], *, elect: str, normalize: bool, factor: bool) -> Tensor:
    """B + lambda * what agrees with the elected sign (TIES, sections 4.2 and 4.3).

    The vote of source i is w_i S_i (`weighted`) or S_i (`unweighted`); s = +1 where the votes sum to 0 or more, else
    -1; out = B + lambda * sum of the w_i S_i whose vote has sign s, divided under `normalize` by the sum of their
    weights (1 where that is 0).

    Args:
        block: its first numbers are the w_i, its last is lambda, if `factor`.
        thinned: (n,) float32 each, fresh: what is left of every task vector.
        elect: how to vote.
        normalize: whether to divide.
        factor: whether there is a lambda.
    """
    weights = block.numbers[: len(thinned)]
    votes, total = _votes([part.detach() for part in thinned], [weight.detach() for weight in weights], elect)
    merged: Tensor | None = None
    divisor: Tensor | None = None
    for part, vote, weight in zip(thinned, votes, weights, strict=True):
        # Entries of zero add nothing to the sum, whether they agree or not; to the divisor they must not.
        agrees = agreeing(vote, total, zeros=not normalize)
        term = chosen(part, agrees) * weight
        merged = term if merged is None else merged.add_(term)
        if normalize:
            share = chosen(weight, agrees)
            divisor = share if divisor is None else divisor.add_(share)
    assert merged is not None
    if divisor is not None:
        merged.div_(zero_as_one(divisor))
    if factor:
        merged.mul_(block.numbers[-1])
    return merged.add_(block.base)


def _votes(thinned: Sequence[Tensor], weights: Sequence[Tensor], elect: str) -> tuple[Sequence[Tensor], Tensor]:
    votes = thinned if elect == "unweighted" else [part * weight for part, weight in zip(thinned, weights, strict=True)]
    total = votes[0]
    for position, vote in enumerate(votes[1:]):
        total = total + vote if position == 0 else total.add_(vote)
    return votes, total
