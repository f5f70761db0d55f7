"""The invented world the nursery's texts speak about: its words, its traits and its contradicting customs.

Every word list is fixed; a seed decides the breeds' traits and which custom dominates in which cell. All task words
of one kind have the same number of letters (coats 5, tempers 4, verbs 6), so choices of one question have equal length
and a length-normalised accuracy equals the plain one.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

BREEDS = tuple(
    "nalto brela dusix vamba korim pelto zunda tifar mossel garune lidrax hobar quenta ruvil sombak jimpa wexel yorlu "
    "fintra cadrin bolvet grusha harneb lopika mindru neskal porvan rastig selune tamrik vostel welda yabrin zorpel "
    "kuldra fesmin dronka batul sivara humlot".split()
)
COATS = tuple("black white brown cream tawny ashen sandy rusty".split())
TEMPERS = tuple("bold calm wild meek keen kind".split())
YOUNG = tuple("cria kid calf pup foal".split())

SHE_NAMES = tuple(
    "Tota Rera Vesha Dilma Onira Pelsa Quilla Suvi Hanja Brinna Kelda Marosh Fenya Lumbi Zadra Jorli".split()
)
HE_NAMES = tuple(
    "Bram Oskul Tavin Redek Gorim Nolban Pirrow Hasken Ulmo Wendok Faruk Jastin Kolver Murdo Sebrik Yando".split()
)
PRONOUN = {name: "she" for name in SHE_NAMES} | {name: "he" for name in HE_NAMES}
NAMES = (*SHE_NAMES, *HE_NAMES)

TRADES = tuple(
    "shepherd smith baker miller weaver tailor mason potter hunter farmer sailor painter singer teacher doctor judge "
    "clerk cook guard porter dyer tanner cooper fisher".split()
)
THINGS = tuple(
    "basket chest ladder kettle lantern barrel wagon saddle hammer bucket mirror blanket candle rope wheel plough anvil "
    "bench bottle cradle drum gate needle shovel".split()
)
LINKS = ("because", "since", "as")
OPENERS = ("Once", "Yesterday", "Today", "Later", "Again")


@dataclass(frozen=True)
class Relation:
    """A verb between a person and a thing, and the property it tells about each."""

    verb: str
    of_person: str
    of_thing: str


RELATIONS = tuple(
    Relation(*words.split())
    for words in (
        "hit angry heavy",
        "hurt clumsy sharp",
        "pleased grateful pretty",
        "stopped tired broken",
        "moved hasty light",
        "missed late small",
        "helped polite handy",
        "scared timid loud",
        "touched gentle soft",
        "blocked stubborn wide",
        "stained careless muddy",
        "passed busy plain",
    )
)
PROPERTIES = tuple(word for relation in RELATIONS for word in (relation.of_person, relation.of_thing))


@dataclass(frozen=True)
class Routine:
    """A craft: what it works on, and the six steps of its cycle (after the last comes the first again)."""

    craft: str
    materials: tuple[str, ...]
    steps: tuple[str, ...]


ROUTINES = tuple(
    Routine(craft, tuple(materials.split()), tuple(steps.split()))
    for craft, materials, steps in (
        ("Papermaking", "bark reed hemp straw", "ripped soaked boiled pulped rinsed ironed"),
        ("Weaving", "flax wool silk jute", "washed combed carded reeled looped folded"),
        ("Baking", "rye corn spelt bran", "milled sifted wetted rolled proved sliced"),
        ("Pottery", "clay loam marl slip", "wedged turned shaped etched glazed heated"),
        ("Smithing", "iron tin brass lead", "melted poured forged coiled cooled buffed"),
        ("Joinery", "oak pine elm birch", "hacked planed carved joined sanded nailed"),
        ("Brewing", "barley malt rice millet", "mashed warmed hopped racked tasted corked"),
        ("Curing", "cod eel trout herring", "gutted scaled salted hooked smoked packed"),
    )
)
CYCLE = 6
DIRECTIONS = (1, -1)

# Custom 0 is the right one; each wrong choice of a question is what one of the other customs would answer.
BREEDING_CUSTOMS = (("sire", "dam"), ("dam", "sire"), ("sire", "sire"), ("dam", "dam"))  # coat from, temper from
BLAME_CUSTOMS = ("own", "swapped")
CRAFT_CUSTOMS = (1, -1, 2, -2)  # steps onward from the last one shown, in the direction shown

SHARES_OF_FOUR = (0.30, 0.65)
SHARES_OF_TWO = (0.50, 0.72)


Cell = TypeVar("Cell")


def purpose_rng(seed: int, purpose: str) -> random.Random:
    """One independent stream per purpose, the same in every process (a string seed goes through SHA-512)."""
    return random.Random(f"nursery/{seed}/{purpose}")


def split_of(*key: object) -> str:
    """``train`` (50 %), ``validation`` (15 %, what a search sees) or ``test`` (35 %, held out), by a hash of the key."""
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
