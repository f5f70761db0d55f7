"""SCE: select the elements on which models differ most, weigh models by how much they changed, erase what disagrees.

Paper: FuseChat (arXiv 2408.07990), section 3.3.

    D_i = M_i - B;  v = the variance of the D_i at each element, over the models
    S(D) keeps D at the k = max(1, int(select_topk * #{v > 0})) elements of largest v, equal ones by index; all elements
    where select_topk is 1 or v is 0 everywhere
    W_i = |S(D_i)|^2 / sum_j |S(D_j)|^2 over the whole tensor;  s = +1 where sum_i S(D_i) >= 0 else -1
    out = B + sum_{i agrees} W_i S(D_i) / sum_{i agrees} W_i

Differs from the paper: the last division is by the weights of those that agree, as its authors have it in mergekit.
Differs from mergekit: weights are relative however small the changes are, and so is the last division (there, a total
below 1e-6 makes the weights equal, or the change smaller); one source, or equal ones, are not erased by select_topk;
select_topk 0 gives the base, anything above selects at least one element.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import FloatParam
from merging.kernels import BLOCK, Block, Inputs, Method, Step
from merging.magnitudes import ORDER_BYTES, Sizes, cut_at, members, picked, share, whole_order, within
from merging.masks import chosen
from merging.reductions import TREE, ordered_sum
from merging.scalars import value
from merging.task_vectors import elected


def kernel(inputs: Inputs) -> Step:
    """Select, calculate the weights, erase."""
    topk = value(inputs.number("select_topk"))
    if topk >= 1.0 or not _differing(inputs):
        squares = [inputs.delta_dot(position, position) for position in inputs.others]
        return Step(merged, _weights(squares), flags={"selected": False})
    sizes, count = _spreads(inputs), share(_differing(inputs), topk)
    squares = [_largest_squares(inputs, sizes, position, count) for position in inputs.others]
    return Step(merged, _weights(squares), cut_at(sizes, count).words, {"selected": True}, indexed=True)


def merged(block: Block, *, selected: bool) -> Tensor:
    """Formula: numbers are the W_i; words those of the cut by variance, under `selected`."""
    deltas = block.deltas()
    if selected:
        mask = within(block, spread(deltas), 0)
        deltas = [chosen(delta, mask) for delta in deltas]
    return elected(block, deltas, elect="unweighted", normalize=True, factor=False)


def spread(deltas: Sequence[Tensor]) -> Tensor:
    """Sum of the squared distances from the mean, which orders elements as the variance does; fresh."""
    if len(deltas) == 1:
        return torch.zeros_like(deltas[0])
    # Counted from the first, so that equal ones give exactly 0.
    others = [delta - deltas[0] for delta in deltas[1:]]
    mean = others[0].clone()
    for other in others[1:]:
        mean += other
    mean *= 1.0 / len(deltas)
    total = mean * mean
    for other in others:
        distance = other.sub_(mean)
        # `square_` gives the same and cannot be traced, so nothing that holds it can be compiled.
        total += distance.mul_(distance)
    return total


def _weights(squares: Sequence[float]) -> tuple[float, ...]:
    total = sum(squares)
    return tuple(square / total if total else 1.0 / len(squares) for square in squares)


def _spreads(inputs: Inputs) -> Sizes:
    """The variances, by which the elements are ordered."""
    assert inputs.base is not None
    base = inputs.tensors[inputs.base]
    tensors = [inputs.tensors[position] for position in inputs.others]

    def read(selected: slice | Tensor) -> Tensor:
        origin = picked(base, selected)
        return spread([picked(tensor, selected) - origin for tensor in tensors])

    return Sizes(("spread", inputs.base, inputs.content), inputs.elements, inputs.device, read, inputs.statistics)


def _differing(inputs: Inputs) -> int:
    """At how many elements the models differ; counted once."""
    sizes = _spreads(inputs)

    def counted() -> int:
        starts = range(0, sizes.elements, BLOCK)
        return sum(int(torch.count_nonzero(sizes.read(slice(start, start + BLOCK)))) for start in starts)

    return int(inputs.statistics.number(("differing", sizes.key), counted))


def _largest_squares(inputs: Inputs, sizes: Sizes, position: int, count: int) -> float:
    """|S(D)|^2 of a source, in the order of the variance: whole trees from what is kept, and the rest."""
    done = count // TREE

    def running() -> tuple[float, ...]:
        order, sums = whole_order(sizes), [0.0]
        for start in range(0, sizes.elements // TREE * TREE, TREE):
            sums.append(sums[-1] + _squares(inputs, position, order[start : start + TREE].long()))
        return tuple(sums)

    whole = inputs.statistics.number(("squares", sizes.key, position), running)[done]
    return float(whole + _squares(inputs, position, members(sizes, done * TREE, count)))


def _squares(inputs: Inputs, position: int, chosen: Tensor) -> float:
    """The sum of the squared changes at some indices, in their order."""
    assert inputs.base is not None
    tensor, base = inputs.tensors[position], inputs.tensors[inputs.base]

    def terms(start: int, stop: int) -> Tensor:
        part = chosen[start:stop]
        return (picked(tensor, part) - picked(base, part)).double().square_()

    return ordered_sum(chosen.numel(), terms)


METHOD = Method(
    info=MethodInfo(
        name="sce",
        summary="Select by variance, weigh by squared change, erase minority signs (SCE).",
        needs_base=True,
        symmetric=True,
        params=(
            FloatParam(
                name="select_topk",
                default=1.0,
                low=0.0,
                high=1.0,
                search_low=0.1,
                search_high=1.0,
                about="share of the elements that are merged, those that differ most between the models",
            ),
        ),
    ),
    kernel=kernel,
    scratch=ORDER_BYTES,
)
