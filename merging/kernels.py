"""What a merge method works on: one tensor from every source, read block by block in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from core.catalog import MethodInfo
from core.params import Scalar
from merging.randomness import MaskKey

#: Elements handled at once. A multiple of 65,536 and a divisor of 2^32; bounds the memory, does not change the bytes.
BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Inputs:
    """The same tensor of every source, flat, with the values the recipe gives it.

    Attributes:
        tensors: (n,) in the source's own dtype, in the order of the entry's sources, the base included.
        base: position of the base, if the method takes deltas.
        params: one value per tensor, by name.
        source_params: values per source; the base has none.
        keys: what keys each source's mask.
    """

    tensors: tuple[torch.Tensor, ...]
    base: int | None
    params: Mapping[str, Scalar]
    source_params: tuple[Mapping[str, Scalar], ...]
    keys: tuple[MaskKey, ...]

    @property
    def elements(self) -> int:
        """n."""
        return self.tensors[0].numel()

    @property
    def others(self) -> tuple[int, ...]:
        """Positions of the sources besides the base."""
        return tuple(position for position in range(len(self.tensors)) if position != self.base)

    def number(self, name: str) -> float:
        """A value that holds for the whole tensor."""
        return float(self.params[name])

    def numbers(self, name: str) -> list[float]:
        """A value per source besides the base, in order."""
        return [float(self.source_params[position][name]) for position in self.others]

    def block(self, position: int, start: int, stop: int) -> torch.Tensor:
        """Elements of one source as float32; may be a view of the source, so never write into it."""
        return self.tensors[position][start:stop].to(torch.float32)

    def base_block(self, start: int, stop: int) -> torch.Tensor:
        """Elements of the base; as `block`."""
        assert self.base is not None
        return self.block(self.base, start, stop)

    def deltas(self, start: int, stop: int) -> list[torch.Tensor]:
        """The task vectors M_i - B of every source besides the base, in order; fresh tensors."""
        base = self.base_block(start, stop)
        return [self.block(position, start, stop) - base for position in self.others]


#: Gives the float32 result from `start` to `stop`; the tensor may be a view of a source.
Combine = Callable[[int, int], torch.Tensor]
#: Reads whole tensors where the method needs to (norms, thresholds), and returns how to combine a block.
Kernel = Callable[[Inputs], Combine]


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method: what the catalogue says of it, and its arithmetic."""

    info: MethodInfo
    kernel: Kernel


def weighted_sum(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """sum_i w_i T_i in float32, in order, every product rounded before it is added (no fused multiply-add)."""
    total = tensors[0] * weights[0]
    product = torch.empty_like(total)
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += torch.mul(tensor, weight, out=product)
    return total


def divided(tensor: torch.Tensor, divisor: float) -> torch.Tensor:
    """`tensor` divided in place by one number, correctly rounded."""
    if divisor == 1.0:
        return tensor
    # A plain number would be turned into a multiplication by its reciprocal on CUDA, and give other bytes there.
    return tensor.div_(torch.tensor(divisor, dtype=torch.float32, device=tensor.device))


def scaled(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    """`tensor` times one number, in place; untouched where the factor is 1."""
    return tensor if factor == 1.0 else tensor.mul_(factor)
