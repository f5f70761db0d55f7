"""Per-item results of one candidate on one task: packed, mergeable, indexed by canonical document number."""

from __future__ import annotations

import array
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import lt

from core.errors import OutcomeConflictError

#: The positions set in each byte.
_BITS = tuple(tuple(b for b in range(8) if byte >> b & 1) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Results for some documents of one task, ascending by canonical document number.

    Attributes:
        numbers: canonical document numbers, strictly ascending.
        correct: 1 where the chosen answer is the right one (under the task's metric), else 0.
        margins: log-likelihood of the right answer minus the best wrong one, in nats; length-normalised (per
            character) where the metric is `acc_norm`.
    """

    numbers: tuple[int, ...]
    correct: tuple[int, ...]
    margins: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.numbers) == len(self.correct) == len(self.margins):
            raise ValueError("numbers, correct and margins must have one length: build them item by item")
        if not all(map(lt, self.numbers, self.numbers[1:])):
            raise ValueError("document numbers must be strictly ascending: use Outcomes.of")

    @classmethod
    def of(cls, items: Iterable[tuple[int, int, float]]) -> Outcomes:
        """Build from (number, correct, margin) triples in any order."""
        rows = sorted(items)
        return cls(*zip(*rows, strict=True)) if rows else cls.empty()

    @classmethod
    def empty(cls) -> Outcomes:
        """No results yet."""
        return cls((), (), ())

    def __len__(self) -> int:
        return len(self.numbers)

    def __or__(self, other: Outcomes) -> Outcomes:
        """Union of two disjoint sets of results.

        Raises:
            OutcomeConflictError: a document is in both.
        """
        both = set(self.numbers) & set(other.numbers)
        if both:
            raise OutcomeConflictError(f"documents {sorted(both)[:5]!r} are already scored: score only missing ones")
        return Outcomes.of([*self.items(), *other.items()])

    def items(self) -> list[tuple[int, int, float]]:
        """(number, correct, margin) triples, ascending."""
        return list(zip(self.numbers, self.correct, self.margins, strict=True))

    def select(self, numbers: Iterable[int]) -> Outcomes:
        """The results among `numbers` that are present."""
        wanted = set(numbers)
        return Outcomes.of(row for row in self.items() if row[0] in wanted)

    def missing(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Those of `numbers` that have no result yet, in the order given."""
        present = set(self.numbers)
        return tuple(n for n in numbers if n not in present)


def pack(
    outcomes: Outcomes, documents: int, onto: tuple[bytes, bytes, bytes] | None = None
) -> tuple[bytes, bytes, bytes]:
    """Presence bitmap, correctness bitmap (bit n of byte n//8 is document n) and little-endian float32 margins.

    Margins hold `documents` values, 0.0 where nothing is present.

    Args:
        outcomes: what is packed.
        documents: how many documents the task has.
        onto: the packed form of other documents' results, to which these are added.
    """
    if onto is None:
        onto = bytes((documents + 7) // 8), bytes((documents + 7) // 8), bytes(4 * documents)
    presence, correct, margins = bytearray(onto[0]), bytearray(onto[1]), _floats(onto[2])
    for number, right, margin in zip(outcomes.numbers, outcomes.correct, outcomes.margins, strict=True):
        presence[number >> 3] |= 1 << (number & 7)
        correct[number >> 3] |= right << (number & 7)
        margins[number] = margin
    if sys.byteorder == "big":
        margins.byteswap()
    return bytes(presence), bytes(correct), margins.tobytes()


def unpack(presence: bytes, correct: bytes, margins: bytes) -> Outcomes:
    """The inverse of `pack`."""
    values = _floats(margins)
    numbers = bits(presence)
    right = tuple(correct[n >> 3] >> (n & 7) & 1 for n in numbers)
    return Outcomes(numbers, right, tuple(map(values.__getitem__, numbers)))


def _floats(packed: bytes) -> array.array[float]:
    values = array.array("f", packed)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def bits(bitmap: bytes) -> tuple[int, ...]:
    """Positions of the set bits, ascending."""
    return tuple(8 * i + b for i, byte in enumerate(bitmap) for b in _BITS[byte])


def bitmap(numbers: Iterable[int], length: int) -> bytes:
    """A bitmap of `length` bits with `numbers` set."""
    packed = bytearray((length + 7) // 8)
    for number in numbers:
        packed[number // 8] |= 1 << (number % 8)
    return bytes(packed)
