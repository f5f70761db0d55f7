"""The order of the elements of a tensor by size, from which the cut of any density is read at once.

Where there is room, the whole order is kept (4 bytes an element) and a cut is one look-up. Where there is none, counts
by the top bits of the sizes are kept, and a cut takes one pass over the tensor. Both give the same cut.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from ctypes import c_float
from dataclasses import dataclass
from struct import pack, unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.errors import TooLargeError
from merging.kernels import BLOCK, Block, Inputs
from merging.masks import MAGNITUDE, below
from merging.masks import sizes as bits_of
from merging.statistics import Statistics

#: The low bits of a size, which the counts leave out; above them are the exponent and seven bits of mantissa.
LOW_BITS = 16
#: Bytes per element that sorting takes: pairs of size and index in 64 bits, and the order in 32.
ORDER_BYTES = 12
#: Tensors up to this size are sorted anew where there is no room, which is as cheap as a pass.
SMALL = 1 << 16
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Non-negative float32 numbers, one per element of a tensor, by which the elements are ordered.

    Attributes:
        key: names the numbers: equal keys mean equal numbers.
        elements: how many there are.
        device: where they are.
        read: gives those of a slice, or of an int64 tensor of indices; a fresh tensor.
        statistics: keeps what is found out.
        pair: gives the tensors whose difference has these magnitudes, where they are such.
    """

    key: Hashable
    elements: int
    device: torch.device
    read: Callable[[slice | Tensor], Tensor]
    statistics: Statistics
    pair: Callable[[], Sequence[Tensor]] | None = None

    def one(self, place: int) -> float:
        """The number of one element."""
        if self.pair is not None and self.device.type == "cpu":
            tensor, base = self.pair()
            # Several times faster than `read`. The difference of two float32 numbers taken in float64 and then rounded
            # is the one taken in float32.
            return c_float(abs(tensor[place].item() - base[place].item())).value
        return float(self.read(slice(place, place + 1)))


@dataclass(frozen=True, slots=True)
class Cut:
    """Which elements are among the largest: those above a size, and the first ones of exactly that size.

    Attributes:
        bits: of the size, as an integer.
        until: index from which on elements of exactly that size are left out.
    """

    bits: int
    until: int

    @property
    def words(self) -> tuple[int, int]:
        """What `within` takes, as words of a step."""
        return self.bits & 0xFFFFFFFF, self.until


#: The cuts that keep every element and none.
EVERYTHING, NOTHING = Cut(-1, 0), Cut(MAGNITUDE, 0)


def change_sizes(
    load: Callable[[], tuple[Tensor, Tensor]],
    content: tuple[str, str],
    elements: int,
    device: torch.device,
    statistics: Statistics,
) -> Sizes:
    """|M - B| of the two flat tensors that `load` gives, once something is read; `content` names theirs."""
    loaded: list[Tensor] = []

    def pair() -> Sequence[Tensor]:
        if not loaded:
            loaded.extend(load())
        return loaded

    def read(chosen: slice | Tensor) -> Tensor:
        tensor, base = pair()
        return (picked(tensor, chosen) - picked(base, chosen)).abs_()

    return Sizes(("change", *content), elements, device, read, statistics, pair)


def picked(tensor: Tensor, chosen: slice | Tensor) -> Tensor:
    """Elements of a flat tensor as float32; may be a view of it."""
    return (tensor[chosen] if isinstance(chosen, slice) else tensor.index_select(0, chosen)).to(torch.float32)


def changes(inputs: Inputs, position: int) -> Sizes:
    """The magnitudes of a source's task vector."""
    assert inputs.base is not None
    content = inputs.content[position], inputs.content[inputs.base]
    tensors = inputs.tensors[position], inputs.tensors[inputs.base]
    return change_sizes(lambda: tensors, content, inputs.elements, inputs.device, inputs.statistics)


def within(block: Block, values: Tensor, word: int) -> Tensor:
    """The mask of the elements that a cut keeps.

    Args:
        block: of an indexed step.
        values: (n,) whose magnitudes are the sizes.
        word: where among the block's words those of the cut begin.
    """
    assert block.index is not None
    return largest(values, block.index, block.words[word], block.words[word + 1])


def largest(values: Tensor, index: Tensor, bits: Tensor | int, until: Tensor | int) -> Tensor:
    """As `within`, from the indices of the elements (int32) and what makes up the cut."""
    # Elements before `until` are kept from the size on, later ones only above it.
    bound = below(index, until).add_(bits)
    return bound.sub_(bits_of(values)).bitwise_right_shift_(31)


def share(elements: int, density: float) -> int:
    """How many elements a density keeps: at least one, unless it is 0."""
    if density <= 0.0:
        return 0
    return elements if density >= 1.0 else max(1, int(density * elements))


def cut_at(sizes: Sizes, count: int) -> Cut:
    """The cut that keeps exactly the `count` largest elements, equal ones in the order of their index.

    Raises:
        TooLargeError: the tensor has 2^31 elements or more.
    """
    if count <= 0:
        return NOTHING
    if count >= sizes.elements:
        return EVERYTHING
    if sizes.elements >= 1 << 31:
        raise TooLargeError(f"elements are ordered in tensors below 2^31, but one has {sizes.elements!r}: trim nothing")
    order = kept_order(sizes)
    if order is not None:
        last = order[count - 1].item()
        assert isinstance(last, int)
        (bits,) = unpack("<i", pack("<f", sizes.one(last)))
        return Cut(bits, last + 1)
    return _counted_cut(sizes, count)


def kept_order(sizes: Sizes) -> Tensor | None:
    """Indices from the largest size to the smallest, int32, if there is room to keep them."""
    key = ("order", sizes.key)
    found = sizes.statistics.kept(key)
    if found is not None:
        return found[0]
    if sizes.elements > SMALL and not sizes.statistics.has_room(key, 4 * sizes.elements):
        return None
    return sizes.statistics.tensors(key, lambda: (_order(sizes),))[0]


def whole_order(sizes: Sizes) -> Tensor:
    """As `kept_order`, made for the occasion where it cannot be kept."""
    order = kept_order(sizes)
    return _order(sizes) if order is None else order


def members(sizes: Sizes, start: int, stop: int) -> Tensor:
    """Indices of the elements at these places of the order, int64."""
    order = kept_order(sizes)
    if order is not None:
        return order[start:stop].long()
    before, upto = cut_at(sizes, start), cut_at(sizes, stop)
    found, keys = [], []
    for first, bits in _bits(sizes):
        index = torch.arange(first, first + bits.numel(), dtype=torch.int32, device=bits.device)
        values = bits.view(torch.float32)
        inside = largest(values, index, upto.bits, upto.until) & ~largest(values, index, before.bits, before.until)
        chosen = _places(inside != 0)
        found.append(chosen + first)
        keys.append(bits[chosen])
    # They are in the order of their index already.
    return torch.cat(found)[torch.sort(torch.cat(keys), descending=True, stable=True).indices]


def counts(sizes: Sizes) -> Counts:
    """How many sizes have which top bits, (2^15,); counted once."""

    def counted() -> tuple[Counts, Counts]:
        total = np.zeros(1 << 31 - LOW_BITS, dtype=np.int64)
        for _, bits in _bits(sizes):
            total += torch.bincount(bits.bitwise_right_shift_(LOW_BITS), minlength=total.size).cpu().numpy()
        return _sparse(total)

    return _dense(1 << 31 - LOW_BITS, *sizes.statistics.number(("counts", sizes.key), counted))


def counts_within(sizes: Sizes, top: int) -> tuple[Counts, Counts]:
    """The low bits of the sizes with certain top bits, ascending, and how many sizes have each."""
    total = np.zeros(1 << LOW_BITS, dtype=np.int64)
    for bits in _bits_with(sizes, top):
        total += torch.bincount(bits.bitwise_and_((1 << LOW_BITS) - 1), minlength=total.size).cpu().numpy()
    return _sparse(total)


def place_of(sizes: Sizes, bits: int, nth: int) -> int:
    """Index of the nth element (from 1) of exactly one size."""
    for start, found in _bits(sizes):
        equal = _places(found == bits)
        if nth <= equal.numel():
            return start + int(equal[nth - 1])
        nth -= equal.numel()
    raise AssertionError("fewer elements of that size than were counted")


def rank_within(ascending: Counts, count: int) -> tuple[int, int]:
    """Where the count-th largest of counted things is: its place, and how many are left to take from there."""
    at_least = ascending[::-1].cumsum()
    place = int(np.searchsorted(at_least, count))
    above = int(at_least[place - 1]) if place else 0
    return ascending.size - 1 - place, count - above


def _counted_cut(sizes: Sizes, count: int) -> Cut:
    top, left = rank_within(counts(sizes), count)
    lows, equal = counts_within(sizes, top)
    place, left = rank_within(equal, left)
    bits = top << LOW_BITS | int(lows[place])
    # Where all of that size are kept, it does not matter where they are.
    return Cut(bits, sizes.elements if left == equal[place] else place_of(sizes, bits, left) + 1)


def _order(sizes: Sizes) -> Tensor:
    """Sizes and indices are sorted as one number, so that equal sizes stand in the order of their index."""
    packed = torch.empty(sizes.elements, dtype=torch.int64, device=sizes.device)
    for start, bits in _bits(sizes):
        part = packed[start : start + bits.numel()]
        part.copy_(bits.bitwise_xor_(MAGNITUDE)).bitwise_left_shift_(32)
        part.add_(torch.arange(start, start + bits.numel(), device=sizes.device))
    if packed.device.type == "cpu":
        packed.numpy().sort()  # four times faster than torch's
    else:
        packed = torch.sort(packed).values
    return packed.to(torch.int32)


def _bits(sizes: Sizes) -> Iterator[tuple[int, Tensor]]:
    """The bits of all sizes, block by block, with the index of the first."""
    for start in range(0, sizes.elements, BLOCK):
        yield start, sizes.read(slice(start, min(start + BLOCK, sizes.elements))).view(torch.int32)


def _bits_with(sizes: Sizes, top: int) -> Iterator[Tensor]:
    """The bits of the sizes with certain top bits."""
    order = kept_order(sizes)
    if order is None:
        for _, bits in _bits(sizes):
            yield bits[_places(bits >> LOW_BITS == top)]
        return
    found = counts(sizes)
    start = int(found[top + 1 :].sum())
    members = order[start : start + int(found[top])]
    for first in range(0, members.numel(), BLOCK):
        yield bits_of(sizes.read(members[first : first + BLOCK].long()))


def _places(mask: Tensor) -> Tensor:
    """Where a mask is true."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # several times faster than torch's
    return torch.nonzero(mask).view(-1)


def _sparse(dense: Counts) -> tuple[Counts, Counts]:
    places = np.flatnonzero(dense)
    return places, dense[places]


def _dense(size: int, places: Counts, values: Counts) -> Counts:
    dense = np.zeros(size, dtype=np.int64)
    dense[places] = values
    return dense
