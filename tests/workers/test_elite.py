"""Whom a generator can learn from."""

from tests.core.families import model
from tests.search.studies import record, stack
from workers.elite import elite

BASE = model("base")
DEPTH = BASE.header.layers


def scored(number, macro, items=300, **fields):
    return record(number, layers=fields.pop("layers", DEPTH), macro=macro, scored_items=items, **fields)


def numbers(every, top=8):
    return [trial.number for trial in elite(every, BASE, top)]


def test_those_scored_on_most_items_come_first_and_the_best_of_these():
    every = [scored(0, 0.9, items=50), scored(1, 0.5), scored(2, 0.7), scored(3, 0.6)]
    assert numbers(every) == [2, 3, 1, 0]
    assert numbers(every, top=2) == [2, 3]


def test_of_equals_the_first_and_of_one_recipe_the_one_that_came_furthest():
    assert numbers([scored(1, 0.5), scored(0, 0.5)]) == [0, 1]
    assert numbers([scored(0, 0.9, items=50), scored(1, 0.5, recipe_digest="digest-0")]) == [1]


def test_parents_other_depths_other_families_and_who_has_no_score_are_left_out():
    other = stack(DEPTH).evolve(model_type="qwen2")
    every = [
        scored(0, 0.9, origin="parent"),
        scored(1, 0.9, layers=DEPTH + 1),
        scored(2, None),
        scored(3, 0.9, resolved=other),
        scored(4, 0.1),
    ]
    assert numbers(every) == [4]
