"""What a merge method is made of: a kernel that looks at one tensor's sources, and a formula that combines them.

The kernel runs once per tensor, on the host. It may read whole tensors (norms, thresholds, ranks), and returns a
`Step`: a formula with the numbers that go into it. The formula is a pure function of blocks, element by element, in
float32; it runs block by block as it stands, or compiled, and gives the same bytes both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import Scalar
from merging.randomness import MaskKey, draws, keep
from merging.reductions import dot, ordered_sum
from merging.statistics import Statistics

#: Elements handled at once. A multiple of 65,536 and a divisor of 2^32; bounds the memory, does not change the bytes.
BLOCK = 1 << 18
#: Magnitudes between which float32 keeps its digits, with some room for rounding above.
SMALLEST, LARGEST = 2.0**-126, 2.0**127
#: A number that a kernel reckons with: a float, or a float64 scalar tensor where derivatives are wanted.
Number = float | Tensor


@dataclass(frozen=True, slots=True)
class Sibling:
    """A tensor that a source changes elsewhere in the candidate, or here.

    Attributes:
        content: names the source's tensor and the base's.
        elements: of each.
        load: gives both, flat.
    """

    content: tuple[str, str]
    elements: int
    load: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Pool:
    """All that a source changes in a candidate.

    Attributes:
        key: names the content of all of it.
        members: goes through it, always in the same order.
    """

    key: str
    members: Callable[[], Iterator[Sibling]]


@dataclass(slots=True, eq=False)
class Inputs:
    """The same tensor of every source, flat, with the values the recipe gives it. Nobody writes into it.

    Attributes:
        tensors: (n,) in the source's own dtype, in the order of the entry's sources, the base included.
        shape: of the tensor.
        name: of the tensor in the candidate.
        base: position of the base, if the method takes deltas.
        params: one value per tensor, by name.
        source_params: values per source; the base has none.
        keys: what keys each source's mask.
        content: names each tensor's content; equal names mean equal bytes.
        statistics: keeps what does not depend on the candidate.
        pools: what each source changes in the whole candidate, where the recipe asks for it.
        peaks: the largest magnitude of each tensor; empty where that is not known.
        activations: (columns,) mean magnitude of what each column is multiplied by, (rows,) of each row where those are
            the inputs, for methods that ask; None where nothing is known of it.
        inputs_first: the tensor is a matrix that stands as (inputs, outputs), for methods that ask.
    """

    tensors: tuple[Tensor, ...]
    shape: tuple[int, ...]
    name: str
    base: int | None
    params: Mapping[str, Scalar | Tensor]
    source_params: tuple[Mapping[str, Scalar | Tensor], ...]
    keys: tuple[MaskKey, ...]
    content: tuple[str, ...]
    statistics: Statistics = field(default_factory=Statistics)
    pools: tuple[Pool | None, ...] = ()
    activations: Tensor | None = None
    peaks: tuple[float, ...] = ()
    inputs_first: bool = False

    def revalued(
        self, params: Mapping[str, Scalar | Tensor], source_params: tuple[Mapping[str, Scalar | Tensor], ...]
    ) -> Inputs:
        """The same with other values."""
        # One after another: this is done for every tensor of every candidate, and `replace` takes five times as long.
        return Inputs(
            self.tensors,
            self.shape,
            self.name,
            self.base,
            params,
            source_params,
            self.keys,
            self.content,
            self.statistics,
            self.pools,
            self.activations,
            self.peaks,
            self.inputs_first,
        )

    @property
    def elements(self) -> int:
        """n."""
        return self.tensors[0].numel()

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.tensors[0].device

    @property
    def columns(self) -> int:
        """The last dimension; 1-D tensors are one row."""
        return self.shape[-1] if self.shape else 1

    @property
    def others(self) -> tuple[int, ...]:
        """Positions of the sources besides the base."""
        return _positions(len(self.tensors), self.base)

    def flag(self, name: str) -> Scalar:
        """A choice that holds for the whole tensor."""
        value = self.params[name]
        assert not isinstance(value, Tensor)
        return value

    def number(self, name: str) -> Number:
        """A value that holds for the whole tensor."""
        return _number(self.params[name])

    def numbers(self, name: str) -> list[Number]:
        """A value per source besides the base, in order."""
        return [_number(self.source_params[position][name]) for position in self.others]

    def values(self, name: str) -> list[float]:
        """As `numbers`, for parameters that no derivative is taken by."""
        return [float(value) for value in self.numbers(name)]

    def block(self, position: int, start: int, stop: int) -> Tensor:
        """Elements of one source as float32; may be a view of the source, so never write into it."""
        return self.tensors[position][start:stop].to(torch.float32)

    def delta(self, position: int, start: int, stop: int) -> Tensor:
        """Elements of the task vector M_i - B, float32; a fresh tensor."""
        assert self.base is not None
        return self.block(position, start, stop) - self.block(self.base, start, stop)

    def in_order(self, left: int, right: int) -> tuple[int, int]:
        """Two positions by their content, so that what is taken of a pair is taken in one order and kept once."""
        return (right, left) if self.content[right] < self.content[left] else (left, right)

    def dot(self, left: int, right: int) -> float:
        """<M_l, M_r> over the whole tensor, in float64; taken once per pair of contents."""
        left, right = self.in_order(left, right)
        key = ("dot", self.content[left], self.content[right])
        return float(self.statistics.number(key, lambda: dot(self.tensors[left], self.tensors[right])))

    def delta_dot(self, left: int, right: int) -> float:
        """<D_l, D_r> of two task vectors, as `dot`."""
        assert self.base is not None
        left, right = self.in_order(left, right)
        key = ("delta dot", self.content[left], self.content[right], self.content[self.base])

        def taken() -> float:
            def terms(start: int, stop: int) -> Tensor:
                one = self.delta(left, start, stop).double()
                return one * (one if left == right else self.delta(right, start, stop).double())

            return ordered_sum(self.elements, terms)

        return float(self.statistics.number(key, taken))


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of every source, and what goes into the formula.

    Attributes:
        others: (n,) float32 of every source besides the base, in order; may be views, so never write into them.
        anchor: (n,) float32 of the base, if there is one; as `others`.
        fields: (n,) of the step's fields.
        numbers: scalar tensors of the step's numbers.
        words: scalar int32 tensors of the step's words.
        index: (n,) int32, the element's index within the tensor modulo 2^32; only where the step is `indexed`.
        stretch: scalar int32, the hash of what the index leaves out (`randomness.mix`); 0 below 2^32 elements.
        spare: whether the others are nobody else's, so that a formula that needs each of them once may write into them.
        room: (n,) float32 that the result may be built in, if there is such memory.
    """

    others: tuple[Tensor, ...]
    anchor: Tensor | None
    fields: tuple[Tensor, ...]
    numbers: Sequence[Tensor]
    words: Sequence[Tensor]
    index: Tensor | None
    stretch: Tensor | None
    spare: bool = False
    room: Tensor | None = None

    @property
    def base(self) -> Tensor:
        """(n,) float32 of the base; never write into it."""
        assert self.anchor is not None
        return self.anchor

    def deltas(self) -> list[Tensor]:
        """The task vectors M_i - B in order; fresh tensors."""
        return [other - self.base for other in self.others]

    def kept(self, word: int, number: int) -> Tensor:
        """A mask: float32 ones and zeros.

        Args:
            word: where among the words the two of its `MaskKey` begin.
            number: where among the numbers its `threshold` stands.
        """
        assert self.index is not None
        assert self.stretch is not None
        return keep(draws(self.index, self.words[word] ^ self.stretch, self.words[word + 1]), self.numbers[number])


#: Gives the float32 result of a block from it and the step's flags: fresh, or one of the block's own tensors. It must
#: be element by element, without a branch on values, and may be traced by a compiler.
Formula = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """How the blocks of one tensor are combined.

    Attributes:
        formula: a function at the top of its module: `formula(block, **flags)`.
        numbers: what is rounded to float32 and handed over as `Block.numbers`.
        words: 32-bit words (hash keys, indices), handed over as `Block.words`.
        flags: what chooses between ways through the formula. Every combination is compiled by itself, so nothing that
            changes from candidate to candidate belongs here.
        fields: further tensors, element by element, of a shape that broadcasts to the tensor's.
        indexed: whether the formula needs `Block.index`.
        peak: what no result's magnitude exceeds but by rounding, as far as the kernel can tell from `Inputs.peaks`.
    """

    formula: Formula
    numbers: tuple[Number, ...] = ()
    words: tuple[int, ...] = ()
    flags: Mapping[str, Scalar] = field(default_factory=dict)
    fields: tuple[Tensor, ...] = ()
    indexed: bool = False
    peak: float = math.inf


#: Looks at a tensor's sources and says how to combine them.
Kernel = Callable[[Inputs], Step]


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method: what the catalogue says of it, and its arithmetic.

    Attributes:
        scratch: bytes per element that the kernel takes at once besides its inputs and its step's fields, where nothing
            can be kept from one candidate to the next.
        fields: bytes per element of every source besides the base that its step's fields take.
        by_values: whether the kernel looks at values alone, so that tensors with the same ones share a step.
    """

    info: MethodInfo
    kernel: Kernel
    scratch: int = 0
    fields: int = 0
    by_values: bool = False


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """sum_i w_i T_i in float32, in order, every product rounded before it is added (no fused multiply-add)."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += tensor * weight
    return total


def summed(block: Block, weights: Sequence[Tensor], *, deltas: bool) -> Tensor:
    """As `weighted_sum` of the others or of the task vectors, where each is needed once.

    There is no more at a time than has to be, so that caches hold all: it is built in the block's own memory.
    """
    if any(weight.requires_grad for weight in weights):
        return weighted_sum(block.deltas() if deltas else block.others, weights)
    total: Tensor | None = None
    for other, weight in zip(block.others, weights, strict=True):
        into = other if block.spare else block.room if total is None else None
        term = torch.sub(other, block.base, out=into).mul_(weight) if deltas else torch.mul(other, weight, out=into)
        total = term if total is None else total.add_(term)
    assert total is not None
    return total


def combination(block: Block, *, divide: bool = False) -> Tensor:
    """Formula: sum_i c_i M_i over the sources, with a number each; divided by one more number under `divide`."""
    count = len(block.others)
    total = summed(block, block.numbers[:count], deltas=False)
    return total.div_(block.numbers[count]) if divide else total


def delta_combination(block: Block, *, divide: bool = False, factor: bool = False) -> Tensor:
    """Formula: B + sum_i c_i D_i, the sum divided by one more number under `divide`, and times another under `factor`.

    The numbers are the c_i, then the divisor, then the factor, as far as they are there.
    """
    count = len(block.others)
    total = summed(block, block.numbers[:count], deltas=True)
    if divide:
        total.div_(block.numbers[count])
    if factor:
        total.mul_(block.numbers[count + int(divide)])
    return total.add_(block.base)


def largest_result(step: Step, inputs: Inputs) -> float:
    """What no result's magnitude exceeds but by rounding: told by the kernel, or by the numbers of a combination."""
    peaks = inputs.peaks
    if not peaks or step.formula not in (combination, delta_combination):
        return step.peak
    anchor, total = 0.0 if inputs.base is None else peaks[inputs.base], 0.0
    rest = [abs(float(number)) for number in step.numbers]
    widest = max(peaks[place] for place in inputs.others) + anchor
    sizes = [*rest, widest]
    for place in inputs.others:
        total += rest.pop(0) * (peaks[place] + anchor)
    sizes.append(total)
    if step.flags.get("divide"):
        divisor = rest.pop(0)
        # Below this float32 has fewer digits, down to none.
        total = total / divisor if divisor >= SMALLEST else math.inf
        sizes.append(total)
    if step.flags.get("factor"):
        total *= rest.pop(0)
    # Infinity on the way may leave NaN behind, however small the result should be.
    return total + anchor if overflows_never(*sizes, total + anchor) else math.inf


def overflows_never(*sizes: float) -> bool:
    """Whether magnitudes, and the sums and products that they bound, are far within float32's range."""
    return all(size < LARGEST for size in sizes)


def is_one(number: Number) -> bool:
    """Whether a factor can be left out: a plain 1, without a derivative to be taken by it."""
    return not isinstance(number, Tensor) and number == 1.0


def _number(value: Scalar | Tensor) -> Number:
    return value if isinstance(value, Tensor) else float(value)


@cache
def _positions(count: int, base: int | None) -> tuple[int, ...]:
    return tuple(position for position in range(count) if position != base)
