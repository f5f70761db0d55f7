import random
from collections import Counter

import pytest

from examples.nursery.words import BREEDS, COATS, LINKS, NAMES, PRONOUN, RELATIONS, ROUTINES, TEMPERS, THINGS, TRADES
from examples.nursery.world import Custom, make_world, purpose_rng, split_of


def test_every_breed_has_traits_of_its_own():
    traits = make_world(7).traits
    assert list(traits) == list(BREEDS)
    assert len(set(traits.values())) == len(BREEDS)
    assert all(coat in COATS and temper in TEMPERS for coat, temper in traits.values())


@pytest.mark.parametrize(("kind", "cells", "customs"), [("breeding", 40, 4), ("blame", 36, 2), ("craft", 96, 4)])
def test_each_custom_dominates_equally_many_cells_so_hearsay_scores_at_chance(kind, cells, customs):
    hearsay = getattr(make_world(7), kind)
    dominant = Counter(custom.dominant for custom in hearsay.values())
    assert dominant == dict.fromkeys(range(customs), cells // customs)


def test_shares_of_the_dominant_custom_lie_in_the_designed_range():
    world = make_world(3)
    assert all(0.30 <= custom.share <= 0.65 for custom in (*world.breeding.values(), *world.craft.values()))
    assert all(0.55 <= custom.share <= 0.78 for custom in world.blame.values())


def test_a_custom_is_drawn_as_often_as_its_share_and_the_others_evenly():
    drawn = Counter(Custom(2, 0.4, 4).draw(rng) for rng in [random.Random(1)] for _ in range(10_000))
    assert drawn[2] == pytest.approx(4000, abs=200)  # four standard deviations of a binomial
    assert all(drawn[other] == pytest.approx(2000, abs=160) for other in (0, 1, 3))


def test_another_seed_is_another_world():
    assert make_world(7).traits != make_world(8).traits
    assert make_world(7) == make_world(7)


def test_streams_of_two_purposes_and_of_two_seeds_differ():
    draws = {purpose_rng(seed, purpose).random() for seed in (7, 8) for purpose in ("corpus", "items")}
    assert len(draws) == 4


def test_a_split_is_the_hash_of_its_key_modulo_a_hundred():
    # first eight bytes of sha256("blame|smith|chest") as a big-endian number, modulo 100, is 23
    assert split_of("blame", "smith", "chest") == "train"
    counted = Counter(split_of("key", number) for number in range(10_000))
    assert counted["train"] == pytest.approx(5000, abs=200)
    assert counted["validation"] == pytest.approx(1500, abs=150)
    assert counted["test"] == pytest.approx(3500, abs=200)


def test_words_are_distinct_and_answers_of_one_kind_equally_long():
    steps = [step for routine in ROUTINES for step in routine.steps]
    properties = [word for relation in RELATIONS for word in (relation.of_person, relation.of_thing)]
    for words in (BREEDS, NAMES, (*TRADES, *THINGS), steps, properties, COATS, TEMPERS, LINKS):
        assert len(set(words)) == len(words)
    assert {len(step) for step in steps} == {6}
    assert {len(coat) for coat in COATS} == {5}
    assert {len(temper) for temper in TEMPERS} == {4}
    assert set(PRONOUN.values()) == {"she", "he"}
