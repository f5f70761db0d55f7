import json

from benchmarks.scoring_page import PAGE, RESULTS, page


def test_the_page_shows_the_committed_figures_and_their_commit():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert page(found) == PAGE.read_text(encoding="utf-8"), "write it anew: python -m benchmarks.scoring_page"
    assert f"`{found['commit']}`" in page(found)


def test_a_missed_goal_is_shown_as_missed_even_where_rounding_would_reach_it():
    claim = {"name": "speed", "value": 2.69996, "unit": "times", "goal": 2.7, "better": "higher"}
    machine = {"processor": "one", "cores": 2, "python": "3", "torch": "2", "gpu": None}
    found = {"machine": machine, "command": "c", "commit": "abc", "seconds": 60, "notes": [], "not_run": []}
    assert "| speed | 2.7 times | ≥ 2.7, **missed** |" in page(found | {"claims": [claim]})
    assert "| speed | 2.7 times | ≥ 2.7, reached |" in page(found | {"claims": [claim | {"value": 2.7}]})
