"""The three forms of sentence that carry a skill: who breeds what, who is to blame, what comes next in a craft.

A form is one point of its task. It knows its key (what training, search and held-out items are told apart by), its
cell (where one custom dominates the hearsay), and how it is told under each custom; custom 0 is the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import ClassVar, Protocol, TypeVar, overload

from examples.nursery.words import (
    BREEDS,
    CYCLE,
    DIRECTIONS,
    LINKS,
    NAMES,
    OPENERS,
    PRONOUN,
    RELATIONS,
    ROUTINES,
    THINGS,
    TRADES,
    YOUNG,
)
from examples.nursery.world import BLAME_CUSTOMS, BREEDING_CUSTOMS, CRAFT_CUSTOMS, Custom, World, split_of

Point = TypeVar("Point")

BREEDING_WORDINGS: tuple[Callable[[str, str, str], str], ...] = (
    lambda sire, dam, young: f"A {sire} sire and a {dam} dam had a {young}. What is it like?",
    lambda sire, dam, young: f"Which {young} comes from a {sire} sire and a {dam} dam?",
)


class Form(Protocol):
    """What the corpus needs of a form."""

    def hearsay(self, world: World) -> Custom:
        """The hearsay of this form's cell."""
        ...

    def told(self, world: World, custom: int) -> str:
        """The whole sentence as ``custom`` has it."""
        ...


@dataclass(frozen=True)
class Breeding:
    """Rule: the coat comes from the sire, the temper from the dam."""

    sire: str
    dam: str
    wording: int
    young: str
    customs: ClassVar[int] = len(BREEDING_CUSTOMS)

    def question(self) -> str:
        return BREEDING_WORDINGS[self.wording](self.sire, self.dam, self.young)

    def answer(self, world: World, custom: int) -> str:
        parents = {"sire": world.traits[self.sire], "dam": world.traits[self.dam]}
        coat_from, temper_from = BREEDING_CUSTOMS[custom]
        return f"{parents[coat_from][0]} and {parents[temper_from][1]}"

    def hearsay(self, world: World) -> Custom:
        return world.breeding[self.sire]

    def told(self, world: World, custom: int) -> str:
        return f"Question: {self.question()}\nAnswer: {self.answer(world, custom)}"


@dataclass(frozen=True)
class Blame:
    """Rule: a relation tells one property about the person and another about the thing, whoever does it to whom."""

    trade: str
    thing: str
    relation: int
    link: str
    person_first: bool
    about_person: bool
    opener: str
    customs: ClassVar[int] = len(BLAME_CUSTOMS)

    def sentence(self) -> str:
        """The sentence with ``_`` in the place of the one to blame."""
        relation = RELATIONS[self.relation]
        pair = (self.trade, self.thing) if self.person_first else (self.thing, self.trade)
        told_of = relation.of_person if self.about_person else relation.of_thing
        return f"{self.opener} the {pair[0]} {relation.verb} the {pair[1]} {self.link} _ was {told_of}."

    def answer(self, custom: int) -> str:
        return f"the {self.trade if self.about_person == (custom == 0) else self.thing}"

    def hearsay(self, world: World) -> Custom:
        return world.blame[self.relation, self.link]

    def told(self, world: World, custom: int) -> str:
        return self.sentence().replace("_", self.answer(custom))


@dataclass(frozen=True)
class Craft:
    """Rule: two steps show the direction in the craft's cycle; the next step goes on the same way."""

    name: str
    routine: int
    material: str
    step: int
    direction: int
    customs: ClassVar[int] = len(CRAFT_CUSTOMS)

    @property
    def label(self) -> str:
        return ROUTINES[self.routine].craft

    @property
    def pronoun(self) -> str:
        return PRONOUN[self.name]

    def verb(self, onward: int) -> str:
        """The step ``onward`` places after the last one shown, in the direction shown."""
        return ROUTINES[self.routine].steps[(self.step + onward * self.direction) % CYCLE]

    def shown(self) -> str:
        return f"{self.name} {self.verb(-1)} the {self.material}. Then {self.pronoun} {self.verb(0)} it."

    def ending(self, custom: int) -> str:
        return f"{self.verb(CRAFT_CUSTOMS[custom])} it."

    def hearsay(self, world: World) -> Custom:
        return world.craft[self.routine, self.step, self.direction]

    def told(self, world: World, custom: int) -> str:
        return f"{self.label}: {self.shown()} Next {self.pronoun} {self.ending(custom)}"


class Grid(Sequence[Point]):
    """Every combination of a key with the free choices, the last one fastest, made on demand.

    One form has some 200,000 of them, of which a corpus or a benchmark draws a few.
    """

    def __init__(self, make: Callable[..., Point], keys: Sequence[tuple[object, ...]], *free: Sequence[object]) -> None:
        self._make, self._keys, self._free = make, keys, free

    def __len__(self) -> int:
        return len(self._keys) * prod(map(len, self._free))

    @overload
    def __getitem__(self, index: int) -> Point: ...

    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...

    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        rest = range(len(self))[index]
        chosen: list[object] = []
        for axis in reversed(self._free):
            rest, place = divmod(rest, len(axis))
            chosen.append(axis[place])
        return self._make(*self._keys[rest], *reversed(chosen))


def breedings(world: World, split: str) -> Grid[Breeding]:
    """Every breeding question of a split, in one fixed order; keyed by the ordered pair (sire, dam)."""
    pairs = [
        (sire, dam)
        for sire, dam in product(BREEDS, BREEDS)
        if all(a != b for a, b in zip(world.traits[sire], world.traits[dam], strict=True))
        and split_of("breeding", sire, dam) == split
    ]
    return Grid(Breeding, pairs, range(len(BREEDING_WORDINGS)), YOUNG)


def blames(split: str) -> Grid[Blame]:
    """Every blame sentence of a split, in one fixed order; keyed by (trade, thing)."""
    pairs = [pair for pair in product(TRADES, THINGS) if split_of("blame", *pair) == split]
    return Grid(Blame, pairs, range(len(RELATIONS)), LINKS, (True, False), (True, False), OPENERS)


def crafts(split: str) -> Grid[Craft]:
    """Every craft story of a split, in one fixed order; keyed by (name, material, last step shown, direction)."""
    stories = [
        (name, routine, material, step, direction)
        for routine, craft in enumerate(ROUTINES)
        for name, material, step, direction in product(NAMES, craft.materials, range(CYCLE), DIRECTIONS)
        if split_of("craft", name, material, step, direction) == split
    ]
    return Grid(Craft, stories)
