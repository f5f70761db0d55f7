"""The words of the nursery's world: invented breeds and names, and everyday words for the rest.

All answers of one kind have the same number of letters (coats 5, tempers 4, steps of a craft 6), so the choices of one
question have equal length and a length-normalised accuracy equals the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BREEDS = _words(
    "nalto nalba nalrim nalsix brela brero breto brevan dusix durim duba dula vamba vamto vamro vamla korim korla koro "
    "korvan pelto pelba pelsix pelvan zunla zunro zunrim zunba tisix tivan tito tila gamba gamro gamrim gamvan hobla "
    "hobto hobsix hobrim"
)
COATS = _words("black white brown cream tawny ashen sandy rusty")
TEMPERS = _words("bold calm wild meek keen kind")
YOUNG = _words("cria kid calf pup foal")

SHE_NAMES = _words("Tota Tora Tona Toma Rera Reta Rena Rema Vela Veta Vena Vera Luna Luma Luta Lura")
HE_NAMES = _words("Tolo Toko Toso Tobo Relo Reko Reso Rebo Velo Veko Veso Vebo Lulo Luko Luso Lubo")
PRONOUN = dict.fromkeys(SHE_NAMES, "she") | dict.fromkeys(HE_NAMES, "he")
NAMES = (*SHE_NAMES, *HE_NAMES)

TRADES = _words(
    "shepherd smith baker miller weaver tailor mason potter hunter farmer sailor painter singer teacher doctor judge "
    "clerk cook guard porter dyer tanner cooper fisher"
)
THINGS = _words(
    "basket chest ladder kettle lantern barrel wagon saddle hammer bucket mirror blanket candle rope wheel plough "
    "anvil bench bottle cradle drum gate needle shovel"
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
        "hit cross hard",
        "hurt rash sharp",
        "pleased glad neat",
        "stopped tired stuck",
        "moved weak light",
        "missed late small",
        "helped good handy",
        "scared timid loud",
        "touched sad soft",
        "blocked rude wide",
        "stained lazy wet",
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
    Routine(craft, _words(materials), _words(steps))
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
