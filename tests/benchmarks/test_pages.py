import json

import pytest

from benchmarks.pages import PAGES, SCORING, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_committed_figures_and_their_commit(page):
    found = json.loads(page.results.read_text(encoding="utf-8"))
    assert page.text() == page.path.read_text(encoding="utf-8"), "write it anew: python -m benchmarks.pages"
    assert f"`{found['commit']}`" in page.text()


def test_a_missed_goal_is_shown_as_missed_even_where_rounding_would_reach_it():
    claim = {"name": "speed", "value": 2.69996, "unit": "times", "goal": 2.7, "better": "higher"}
    machine = {"processor": "one", "cores": 2, "python": "3", "torch": "2", "gpu": None}
    found = {"machine": machine, "command": "c", "commit": "abc", "seconds": 60, "notes": [], "not_run": []}
    assert "| speed | 2.7 times | ≥ 2.7, **missed** |" in text(SCORING, found | {"claims": [claim]})
    assert "| speed | 2.7 times | ≥ 2.7, reached |" in text(SCORING, found | {"claims": [claim | {"value": 2.7}]})
