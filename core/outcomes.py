"""Per-item results of one candidate on one task: packed, mergeable, indexed by canonical document number."""

from __future__ import annotations

import array
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.errors import OutcomeConflictError


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
        if any(a >= b for a, b in zip(self.numbers, self.numbers[1:], strict=False)):
            raise ValueError("document numbers must be strictly ascending: use Outcomes.of")

    @classmethod
    def of(cls, items: Iterable[tuple[int, int, float]]) -> Outcomes:
        """Build from (number, correct, margin) triples in any order."""
        rows = sorted(items)
        return cls(tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))

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


def pack(outcomes: Outcomes, documents: int) -> tuple[bytes, bytes, bytes]:
    """Presence bitmap, correctness bitmap (bit n of byte n//8 is document n) and little-endian float32 margins.

    Margins hold `documents` values, 0.0 where nothing is present.
    """
    presence, correct = bytearray((documents + 7) // 8), bytearray((documents + 7) // 8)
    margins = array.array("f", bytes(4 * documents))
    for number, right, margin in outcomes.items():
        presence[number // 8] |= 1 << (number % 8)
        correct[number // 8] |= right << (number % 8)
        margins[number] = margin
    if sys.byteorder == "big":
        margins.byteswap()
    return bytes(presence), bytes(correct), margins.tobytes()


def unpack(presence: bytes, correct: bytes, margins: bytes) -> Outcomes:
    """The inverse of `pack`."""
    values = array.array("f", margins)
    if sys.byteorder == "big":
        values.byteswap()
    numbers = bits(presence)
    right = set(bits(correct))
    return Outcomes(numbers, tuple(int(n in right) for n in numbers), tuple(values[n] for n in numbers))


def bits(bitmap: bytes) -> tuple[int, ...]:
    """Positions of the set bits, ascending."""
    return tuple(8 * i + b for i, byte in enumerate(bitmap) if byte for b in range(8) if byte >> b & 1)


def bitmap(numbers: Iterable[int], length: int) -> bytes:
    """A bitmap of `length` bits with `numbers` set."""
    packed = bytearray((length + 7) // 8)
    for number in numbers:
        packed[number // 8] |= 1 << (number % 8)
    return bytes(packed)
