"""Sums whose bytes depend on nothing but the numbers: no thread count, device or block size enters.

A vector is cut into fixed blocks of 65,536 elements; a block is summed in float64 by a halving tree of element-wise
adds (the last block padded with zeros), and the sums of the blocks are added in order, on the host.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

#: Elements of one tree.
TREE = 65_536
#: Trees summed side by side; bounds the memory, does not change the result.
SIDE_BY_SIDE = 4

Terms = Callable[[int, int], torch.Tensor]


def ordered_sum(elements: int, terms: Terms) -> float:
    """The sum of `terms(start, stop)` over all elements.

    Args:
        elements: how many terms there are.
        terms: gives the float64 terms from `start` to `stop`, 1-D.
    """
    total = 0.0
    for start in range(0, elements, TREE * SIDE_BY_SIDE):
        stop = min(start + TREE * SIDE_BY_SIDE, elements)
        for block in _trees(terms(start, stop)):
            total += block
    return total


def dot(left: torch.Tensor, right: torch.Tensor) -> float:
    """The inner product of two flat tensors."""
    return ordered_sum(left.numel(), lambda start, stop: left[start:stop].double() * right[start:stop].double())


def squared_norm(tensor: torch.Tensor) -> float:
    """The sum of squares of a flat tensor."""
    return dot(tensor, tensor)


def _trees(terms: torch.Tensor) -> list[float]:
    """One sum per block of TREE terms."""
    whole = terms.numel() // TREE * TREE
    sums = _halve(terms[:whole].view(-1, TREE)) if whole else []
    rest = terms.numel() - whole
    if rest:
        # Adding zeros changes nothing, so the short block needs them only up to the next power of two.
        padded = torch.nn.functional.pad(terms[whole:], (0, (1 << (rest - 1).bit_length()) - rest))
        sums += _halve(padded.view(1, -1))
    return sums


def _halve(level: torch.Tensor) -> list[float]:
    """Sum each row, whose length is a power of two, by adding its right half to its left half again and again."""
    while level.shape[1] > 1:
        half = level.shape[1] // 2
        level = level[:, :half] + level[:, half:]
    sums: list[float] = level[:, 0].tolist()
    return sums
