"""The invented world the nursery's texts speak about: its breeds' traits and its contradicting customs.

The words are fixed; a seed decides the traits and which custom dominates in which cell.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from examples.nursery.words import BREEDS, COATS, CYCLE, DIRECTIONS, LINKS, RELATIONS, ROUTINES, TEMPERS

# Custom 0 is the right one; each wrong choice of a question is what one of the other customs would answer.
BREEDING_CUSTOMS = (("sire", "dam"), ("dam", "sire"), ("sire", "sire"), ("dam", "dam"))  # coat from, temper from
BLAME_CUSTOMS = ("own", "swapped")
CRAFT_CUSTOMS = (1, -1, 2, -2)  # steps onward from the last one shown, in the direction shown

SHARES_OF_FOUR = (0.30, 0.65)
SHARES_OF_TWO = (0.55, 0.78)


Cell = TypeVar("Cell")


def purpose_rng(seed: int, purpose: str) -> random.Random:
    """One independent stream per purpose, the same in every process (a string seed goes through SHA-512)."""
    return random.Random(f"nursery/{seed}/{purpose}")


def split_of(*key: object) -> str:
    """By a hash of the key: ``train`` (50 %), ``validation`` (15 %, for searching) or ``test`` (35 %, held out)."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 100
    return "train" if bucket < 50 else "validation" if bucket < 65 else "test"


@dataclass(frozen=True)
class Custom:
    """What is said in one cell: the dominating custom's index, its share, and how many customs there are."""

    dominant: int
    share: float
    count: int

    def draw(self, rng: random.Random) -> int:
        """One custom as the hearsay has it: the dominating one with probability ``share``, else any other."""
        if rng.random() < self.share:
            return self.dominant
        return rng.choice([custom for custom in range(self.count) if custom != self.dominant])


@dataclass(frozen=True)
class World:
    """Traits and hearsay of one seed.

    ``traits`` maps breed → (coat, temper). ``breeding`` is keyed by the sire's breed (40 cells), ``blame`` by
    (relation index, link) (36 cells), ``craft`` by (routine index, last step shown, direction) (96 cells).
    """

    traits: dict[str, tuple[str, str]]
    breeding: dict[str, Custom]
    blame: dict[tuple[int, str], Custom]
    craft: dict[tuple[int, int, int], Custom]


def make_world(seed: int) -> World:
    """The world of one seed."""
    rng = purpose_rng(seed, "world")
    traits = dict(zip(BREEDS, rng.sample(list(product(COATS, TEMPERS)), len(BREEDS)), strict=True))
    relation_cells = list(product(range(len(RELATIONS)), LINKS))
    routine_cells = list(product(range(len(ROUTINES)), range(CYCLE), DIRECTIONS))
    return World(
        traits=traits,
        breeding=_hearsay(list(BREEDS), len(BREEDING_CUSTOMS), SHARES_OF_FOUR, rng),
        blame=_hearsay(relation_cells, len(BLAME_CUSTOMS), SHARES_OF_TWO, rng),
        craft=_hearsay(routine_cells, len(CRAFT_CUSTOMS), SHARES_OF_FOUR, rng),
    )


def _hearsay(cells: list[Cell], count: int, shares: tuple[float, float], rng: random.Random) -> dict[Cell, Custom]:
    """Each custom dominates in an equal number of cells, so that following the hearsay scores at chance."""
    shuffled = rng.sample(cells, len(cells))
    customs = {cell: Custom(index % count, rng.uniform(*shares), count) for index, cell in enumerate(shuffled)}
    return {cell: customs[cell] for cell in cells}
