"""The tables of the page about weight generation are those of the committed figures."""

import json

import pytest

from benchmarks.generation_page import PAGE, RESULTS, Figures, written


def figures(**fields):
    return Figures({"parts": {}, "claims": [{"name": "x", "unit": "", "better": "lower", "goal": None, **fields}]})


def test_the_page_has_the_tables_of_the_committed_figures():
    page = PAGE.read_text("utf-8")
    assert written(page, json.loads(RESULTS.read_text("utf-8"))) == page


def test_a_table_without_a_place_in_the_page_is_told():
    with pytest.raises(ValueError, match="'must hold' needs one place"):
        written("no marks", json.loads(RESULTS.read_text("utf-8")))


@pytest.mark.parametrize(("value", "goal", "told"), [(0.5, 1.0, "≤ 1"), (2.0, 1.0, "≤ 1, missed"), (2.0, None, "told")])
def test_a_goal_says_its_direction_and_whether_it_is_missed(value, goal, told):
    assert figures(value=value, goal=goal).goal("x") == told


def test_numbers_below_nothing_have_a_minus_sign():
    assert figures(value=-0.25).told("x") == "−0.25"
