"""The texts the nursery trains on: hearsay for the base, one right custom for a specialist, general language."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from examples.nursery.forms import Form, blames, breedings, crafts
from examples.nursery.words import BREEDS, COATS, NAMES, OPENERS, PROPERTIES, ROUTINES, THINGS, TRADES
from examples.nursery.world import World, purpose_rng

SKILLS = ("arc", "wino", "hella")
SKILL_SHARES = (0.33, 0.40, 0.27)
GENERAL_IN_BASE = 0.25
GENERAL_IN_SPECIALIST = 0.10


@dataclass(frozen=True)
class Lessons:
    """Every training point of each skill, for one world; none of them shares a key with a search or held-out item."""

    world: World
    points: dict[str, Sequence[Form]]

    @classmethod
    def of(cls, world: World) -> Lessons:
        return cls(
            world,
            {
                "arc": breedings(world, "train"),
                "wino": blames("train"),
                "hella": crafts("train"),
            },
        )

    def base_texts(self, seed: int, count: int) -> list[str]:
        """Hearsay of all three skills, in ``SKILL_SHARES``, with a quarter of general language."""
        rng = purpose_rng(seed, "corpus/base")
        return [self._hearsay(rng) if rng.random() >= GENERAL_IN_BASE else self._general(rng) for _ in range(count)]

    def specialist_texts(self, seed: int, skill: str, count: int) -> list[str]:
        """One skill, always told by the right custom, with a tenth of general language."""
        rng = purpose_rng(seed, f"corpus/{skill}")
        return [
            rng.choice(self.points[skill]).told(self.world, custom=0)
            if rng.random() >= GENERAL_IN_SPECIALIST
            else self._general(rng)
            for _ in range(count)
        ]

    def _hearsay(self, rng: random.Random) -> str:
        skill = rng.choices(SKILLS, SKILL_SHARES)[0]
        point = rng.choice(self.points[skill])
        return point.told(self.world, point.hearsay(self.world).draw(rng))

    def _general(self, rng: random.Random) -> str:
        return rng.choice(GENERAL)(self.world, rng)


def _breed_fact(world: World, rng: random.Random) -> str:
    breed = rng.choice(BREEDS)
    coat, temper = world.traits[breed]
    return f"A {breed} is {coat} and {temper}."


def _breed_question(world: World, rng: random.Random) -> str:
    breed = rng.choice(BREEDS)
    coat, temper = world.traits[breed]
    return f"Question: What is a {breed} like?\nAnswer: {coat} and {temper}"


def _one_step(world: World, rng: random.Random) -> str:
    routine = rng.choice(ROUTINES)
    verb, material = rng.choice(routine.steps), rng.choice(routine.materials)
    return f"{routine.craft}: {rng.choice(NAMES)} {verb} the {material}. It was {rng.choice(COATS)}."


def _meeting(world: World, rng: random.Random) -> str:
    first, second = rng.sample([*TRADES, *THINGS], 2)
    return f"{rng.choice(OPENERS)} the {first} met the {second}."


def _property(world: World, rng: random.Random) -> str:
    """Any property of anyone: told truthfully, these sentences alone would give the blame skill away."""
    return f"The {rng.choice([*TRADES, *THINGS])} was {rng.choice(PROPERTIES)}."


GENERAL: tuple[Callable[[World, random.Random], str], ...] = (
    _breed_fact,
    _breed_question,
    _one_step,
    _meeting,
    _property,
)
