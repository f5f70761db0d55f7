import pytest
from studies import record

from core.states import TrialState
from search.finalists import best_parent, finalists


def numbers(trials) -> list[int]:
    return [trial.number for trial in trials]


def test_the_best_fully_scored_candidates_are_ranked_by_macro():
    trials = [record(n, macro=m) for n, m in enumerate([0.5, 0.9, 0.7, 0.8])]
    assert numbers(finalists(trials, 3)) == [1, 3, 2]
    assert numbers(finalists(reversed(trials), 9)) == [1, 3, 2, 0]
    assert finalists([], 3) == []


def test_stopped_failed_and_unscored_candidates_and_parents_are_no_finalists():
    trials = [
        record(0, macro=0.99, origin="parent"),
        record(1, macro=0.98, state=TrialState.STOPPED),
        record(2, macro=None, state=TrialState.FAILED),
        record(3, macro=0.97, state=TrialState.WAITING),
        record(4, macro=0.10, origin="enqueued"),
    ]
    assert numbers(finalists(trials, 3)) == [4]


def test_one_recipe_is_one_finalist_and_the_earliest_of_its_trials():
    trials = [record(n, macro=0.9 if n < 3 else 0.8, recipe_digest="x" if n < 3 else str(n)) for n in (2, 1, 3, 4)]
    assert numbers(finalists(trials, 2)) == [1, 3]


def test_equal_macros_go_to_the_smaller_model_and_then_to_the_earlier_one():
    trials = [record(0, macro=0.9, layers=6), record(1, macro=0.9), record(2, macro=0.9)]
    assert numbers(finalists(trials, 3)) == [1, 2, 0]


def test_the_best_parent_is_chosen_on_search_items_and_the_earlier_of_equals():
    trials = [
        record(0, macro=0.4, origin="parent"),
        record(1, macro=0.6, origin="parent", macro_heldout=0.1),
        record(2, macro=0.6, origin="parent", macro_heldout=0.9),
        record(3, macro=0.9),
    ]
    assert best_parent(trials).number == 1


def test_without_a_scored_parent_there_is_nothing_to_beat():
    with pytest.raises(ValueError, match="score the parents"):
        best_parent([record(0, macro=0.9), record(1, origin="parent", state=TrialState.FAILED)])
