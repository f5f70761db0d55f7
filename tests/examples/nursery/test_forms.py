from dataclasses import replace
from itertools import combinations

import pytest

from examples.nursery.forms import Blame, Breeding, Craft, Grid, blames, breedings, crafts
from examples.nursery.tasks import SPLITS
from examples.nursery.world import make_world

WORLD = replace(make_world(7), traits={"nalto": ("black", "bold"), "duba": ("white", "meek")})


def test_a_cria_has_its_coat_from_the_sire_and_its_temper_from_the_dam():
    form = Breeding("nalto", "duba", wording=0, young="cria")
    assert form.told(WORLD, custom=0) == (
        "Question: A nalto sire and a duba dam had a cria. What is it like?\nAnswer: black and meek"
    )
    assert [form.answer(WORLD, custom) for custom in (1, 2, 3)] == [
        "white and bold",
        "black and bold",
        "white and meek",
    ]


def test_the_second_wording_asks_for_the_same():
    form = Breeding("duba", "nalto", wording=1, young="kid")
    assert form.question() == "Which kid comes from a duba sire and a nalto dam?"
    assert form.answer(WORLD, custom=0) == "white and bold"


@pytest.mark.parametrize(
    ("person_first", "about_person", "sentence", "blamed"),
    [
        (True, True, "Once the smith hit the chest since _ was cross.", "the smith"),
        (True, False, "Once the smith hit the chest since _ was hard.", "the chest"),
        (False, True, "Once the chest hit the smith since _ was cross.", "the smith"),
        (False, False, "Once the chest hit the smith since _ was hard.", "the chest"),
    ],
)
def test_the_one_to_blame_follows_from_the_property_whoever_did_it(person_first, about_person, sentence, blamed):
    form = Blame("smith", "chest", 0, "since", person_first, about_person, "Once")
    assert form.sentence() == sentence
    assert form.answer(custom=0) == blamed
    assert {form.answer(0), form.answer(1)} == {"the smith", "the chest"}
    assert form.told(WORLD, custom=0) == sentence.replace("_", blamed)


def test_a_craft_goes_on_in_the_direction_shown():
    onward = Craft("Tota", 0, "bark", step=2, direction=1)
    assert onward.told(WORLD, custom=0) == "Papermaking: Tota soaked the bark. Then she boiled it. Next she pulped it."
    assert [onward.ending(custom) for custom in (1, 2, 3)] == ["soaked it.", "rinsed it.", "ripped it."]
    backward = Craft("Toko", 0, "bark", step=0, direction=-1)
    assert backward.told(WORLD, custom=0) == "Papermaking: Toko soaked the bark. Then he ripped it. Next he ironed it."


@pytest.mark.parametrize("seed", [7, 8])
def test_no_two_splits_share_a_key(seed):
    world = make_world(seed)
    keys = {
        "breeding": lambda split: {(form.sire, form.dam) for form in breedings(world, split)},
        "blame": lambda split: {(form.trade, form.thing) for form in blames(split)},
        "craft": lambda split: {(form.name, form.material, form.step, form.direction) for form in crafts(split)},
    }
    for of_split in keys.values():
        sets = [of_split(split) for split in SPLITS]
        assert all(sets)
        assert all(not first & second for first, second in combinations(sets, 2))


def test_all_customs_of_a_form_answer_differently_and_equally_long():
    world = make_world(7)
    for forms, answer in (
        (breedings(world, "validation"), lambda form, custom: form.answer(world, custom)),
        (crafts("validation"), lambda form, custom: form.ending(custom)),
    ):
        for form in forms:
            answers = [answer(form, custom) for custom in range(form.customs)]
            assert len(set(answers)) == form.customs == 4
            assert len({len(text) for text in answers}) == 1


def test_a_grid_counts_through_its_choices_last_one_fastest():
    grid = Grid(lambda *chosen: chosen, [("a",), ("b",)], (1, 2), "xyz")
    assert len(grid) == 12
    assert [*grid] == [(key, number, letter) for key in "ab" for number in (1, 2) for letter in "xyz"]
    assert grid[-1] == ("b", 2, "z")
    assert grid[1:3] == [("a", 1, "y"), ("a", 1, "z")]
    with pytest.raises(IndexError):
        grid[12]
