import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from core.errors import InvalidInputError
from examples.nursery.forms import Blame, Breeding, Craft
from examples.nursery.grow import GrowthPlan
from examples.nursery.tasks import BENCHMARKS, SPLITS, arc_items, hella_items, wino_items
from examples.nursery.words import RELATIONS, ROUTINES, TRADES
from examples.nursery.world import BLAME_CUSTOMS, BREEDING_CUSTOMS, CRAFT_CUSTOMS, make_world

WORLD = make_world(7)
SIZES = GrowthPlan().sizes
FIELDS = {
    "arc": ["id", "question", "choices", "answerKey"],
    "wino": ["sentence", "option1", "option2", "answer"],
    "hella": [
        *("ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings"),
        *("source_id", "split", "split_type", "label"),
    ],
}


@pytest.mark.parametrize("skill", list(BENCHMARKS))
@pytest.mark.parametrize("split", SPLITS)
def test_a_full_split_has_its_size_the_stock_fields_and_no_item_twice(skill, split):
    items = BENCHMARKS[skill].items(WORLD, 7, split, SIZES[split])
    assert len(items) == SIZES[split] >= (400 if split == "train" else 1000)
    assert all(list(item) == FIELDS[skill] for item in items)
    unique = {"arc": "question", "wino": "sentence", "hella": "source_id"}[skill]
    assert len({item[unique] for item in items}) == len(items)
    if skill == "hella":
        assert len({(item["activity_label"], item["ctx"]) for item in items}) == len(items)


def test_an_arc_item_has_one_right_answer_and_the_other_customs_as_wrong_ones():
    right = {Breeding(s, d, 0, "cria").question(): (s, d) for s in WORLD.traits for d in WORLD.traits}
    right |= {Breeding(s, d, 1, "cria").question(): (s, d) for s in WORLD.traits for d in WORLD.traits}
    seen = 0
    for item in arc_items(WORLD, 7, "test", 1000):
        if item["question"] in right:
            seen += 1
            sire, dam = right[item["question"]]
            texts = item["choices"]["text"]
            told = texts[item["choices"]["label"].index(item["answerKey"])]
            assert told == f"{WORLD.traits[sire][0]} and {WORLD.traits[dam][1]}"
            assert texts.count(told) == 1
            form = Breeding(sire, dam, 0, "cria")
            assert sorted(texts) == sorted(form.answer(WORLD, custom) for custom in range(len(BREEDING_CUSTOMS)))
    assert seen > 100


def test_a_winogrande_item_names_the_right_option():
    for item in wino_items(WORLD, 7, "validation", 200):
        options = {item["option1"], item["option2"]}
        assert len(options) == len(BLAME_CUSTOMS)
        assert item["sentence"].count("_") == 1
        # both candidates stand in the sentence, and the answer is the one that the rule blames
        words = item["sentence"].rstrip(".").split()
        assert {f"the {words[2]}", f"the {words[5]}"} == options
        form = _blame(words)
        assert item[f"option{item['answer']}"] == form.answer(custom=0)


def _blame(words: list[str]) -> Blame:
    relation = next(index for index, relation in enumerate(RELATIONS) if relation.verb == words[3])
    first = words[2] in TRADES
    trade, thing = (words[2], words[5]) if first else (words[5], words[2])
    about_person = words[-1] == RELATIONS[relation].of_person
    return Blame(trade, thing, relation, words[6], first, about_person, words[0])


def test_a_hellaswag_item_has_one_right_ending_and_begins_it_in_ctx_b():
    for item in hella_items(WORLD, 7, "validation", 200):
        form = _craft(item)
        assert item["endings"][int(item["label"])] == form.ending(custom=0)
        assert sorted(item["endings"]) == sorted(form.ending(custom) for custom in range(len(CRAFT_CUSTOMS)))
        assert item["ctx"] == f"{item['ctx_a']} {item['ctx_b']}"
        assert item["ctx_b"] == f"next {form.pronoun}"


def _craft(item: dict[str, str]) -> Craft:
    name, first, _, material = item["ctx_a"].split(".")[0].split()
    second = item["ctx_a"].split()[-2]
    routine = next(index for index, routine in enumerate(ROUTINES) if routine.craft == item["activity_label"])
    steps = ROUTINES[routine].steps
    step = steps.index(second)
    return Craft(name, routine, material, step, 1 if steps[(step - 1) % 6] == first else -1)


@pytest.mark.parametrize("skill", list(BENCHMARKS))
def test_the_right_choice_is_in_every_place_about_equally_often(skill):
    items = BENCHMARKS[skill].items(WORLD, 7, "validation", 1000)
    answers = [item[{"arc": "answerKey", "wino": "answer", "hella": "label"}[skill]] for item in items]
    places = 2 if skill == "wino" else 4
    assert len(set(answers)) == places
    assert all(abs(answers.count(place) - 1000 / places) < 80 for place in set(answers))


def test_more_items_than_there_are_is_refused():
    with pytest.raises(InvalidInputError, match="100000 were asked for"):
        hella_items(WORLD, 7, "test", 100_000)


@pytest.mark.parametrize("skill", list(BENCHMARKS))
def test_a_task_file_names_its_splits_and_existing_data(smoke_family, skill):
    name = BENCHMARKS[skill].name
    config = yaml.safe_load((smoke_family.tasks / f"{name}.yaml").read_text())
    assert config["task"] == name
    assert config["metadata"] == {"version": 1.0, "search_split": "validation", "heldout_split": "test"}
    assert [config[f"{use}_split"] for use in ("training", "validation", "test")] == list(SPLITS)
    assert list(config["dataset_kwargs"]["data_files"]) == list(SPLITS)
    for split, path in config["dataset_kwargs"]["data_files"].items():
        rows = pq.read_table(path).to_pylist()
        assert rows == BENCHMARKS[skill].items(WORLD, 7, split, GrowthPlan.smoke().sizes[split])


DIGEST = """
import hashlib, json
from examples.nursery.corpus import SKILLS, Lessons
from examples.nursery.tasks import BENCHMARKS, SPLITS
from examples.nursery.world import make_world
lessons = Lessons.of(make_world(7))
told = [lessons.base_texts(7, 2000), *(lessons.specialist_texts(7, skill, 500) for skill in SKILLS)]
asked = [BENCHMARKS[skill].items(lessons.world, 7, split, 400) for skill in SKILLS for split in SPLITS]
print(hashlib.sha256(json.dumps([told, asked]).encode()).hexdigest())
"""


def test_texts_and_items_do_not_depend_on_the_hash_seed_of_the_process():
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64
