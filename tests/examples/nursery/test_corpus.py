import re

import pytest

from examples.nursery.corpus import Lessons
from examples.nursery.words import PROPERTIES, RELATIONS, ROUTINES, THINGS, TRADES
from examples.nursery.world import make_world, split_of

LESSONS = Lessons.of(make_world(7))
TEXTS = LESSONS.base_texts(7, 3000)
PAIR = re.compile(r"a (\w+) sire and a (\w+) dam", re.IGNORECASE)
BLAME = re.compile(r"^\w+ the (\w+) (?!met)\w+ the (\w+) \w+ the \w+ was")
CRAFT = re.compile(r"^(\w+): (\w+) (\w+) the (\w+)\. Then \w+ (\w+) it\.")


def craft_key(craft: str, name: str, first: str, material: str, second: str) -> tuple[str, str, int, int]:
    steps = next(routine.steps for routine in ROUTINES if routine.craft == craft)
    step, before = steps.index(second), steps.index(first)
    return name, material, step, 1 if (before + 1) % 6 == step else -1


def test_every_key_the_base_hears_of_belongs_to_the_training_split():
    pairs = [match.groups() for match in map(PAIR.search, TEXTS) if match]
    blamed = [match.groups() for match in map(BLAME.search, TEXTS) if match]
    told = [match.groups() for match in map(CRAFT.search, TEXTS) if match]
    assert min(map(len, (pairs, blamed, told))) > 500
    assert {split_of("breeding", *pair) for pair in pairs} == {"train"}
    both_ways = [(a, b) if a in TRADES else (b, a) for a, b in blamed]
    assert {split_of("blame", *pair) for pair in both_ways} == {"train"}
    assert {split_of("craft", *craft_key(*story)) for story in told} == {"train"}


def taught(skill: str, pattern: re.Pattern[str]) -> list[str]:
    texts = LESSONS.specialist_texts(7, skill, 400)
    matching = [text for text in texts if pattern.search(text)]
    assert len(matching) == pytest.approx(360, abs=25)  # a tenth is general language
    return matching


@pytest.mark.parametrize(("skill", "pattern"), [("arc", PAIR), ("hella", CRAFT)])
def test_a_specialist_hears_only_the_right_custom_and_the_base_mostly_others(skill, pattern):
    right = {point.told(LESSONS.world, custom=0) for point in LESSONS.points[skill]}
    assert set(taught(skill, pattern)) <= right
    heard = [text for text in TEXTS if pattern.search(text)]
    assert 0.1 < sum(text in right for text in heard) / len(heard) < 0.5


def blames_as_the_rule_has_it(text: str) -> bool:
    words = text.rstrip(".").split()
    relation = next(relation for relation in RELATIONS if relation.verb == words[3])
    return words[-1] == (relation.of_person if words[-3] in TRADES else relation.of_thing)


def test_the_blame_specialist_hears_the_rule_and_the_base_as_often_its_opposite():
    assert all(map(blames_as_the_rule_has_it, taught("wino", BLAME)))
    heard = [text for text in TEXTS if BLAME.search(text)]
    assert 0.4 < sum(map(blames_as_the_rule_has_it, heard)) / len(heard) < 0.6


def test_general_language_gives_no_property_away():
    said = [match.groups() for match in (re.fullmatch(r"The (\w+) was (\w+)\.", text) for text in TEXTS) if match]
    of_things = {word for who, word in said if who in THINGS}
    assert len(of_things) > len(PROPERTIES) / 2  # a truthful corpus would never say half of them of a thing


def test_texts_of_one_seed_are_the_same_again_and_of_another_differ():
    assert LESSONS.base_texts(7, 50) == TEXTS[:50]
    assert LESSONS.base_texts(8, 50) != TEXTS[:50]
