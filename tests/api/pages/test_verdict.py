from __future__ import annotations

import pytest

from api.pages.verdict import beside, p_value, signed, tell


def verdict(kind: str, points: float, p: float, **winner) -> dict:
    return {
        "verdict": kind,
        "winner": {"trial_id": "t1", "number": 24, "label": "uniform slerp", **winner},
        "reference": {"trial_id": "t0", "number": 1, "label": "maths"},
        "points": points,
        "low": points - 2.2,
        "high": points + 2.2,
        "p": p,
        "alpha": 0.025,
    }


def test_a_gain_says_how_much_and_how_sure():
    told = tell(verdict("gain", 3.1, 0.0031))
    assert told.headline == "Gain: +3.1 points over maths"
    assert told.tone == "good"
    assert "Number 24 (uniform slerp)" in told.body
    assert "95 % interval +0.9 to +5.3, one-sided p = 0.003, tested at 0.025" in told.body


def test_what_is_not_proven_is_not_called_a_gain():
    told = tell(verdict("no gain", 0.8, 0.24))
    assert told.headline == "No gain: +0.8 points over maths is not proven"
    assert told.tone == "plain"


def test_a_loss_is_called_worse():
    told = tell(verdict("worse", -2.4, 0.98))
    assert told.headline == "Worse: −2.4 points against maths"
    assert told.tone == "bad"


def test_without_any_candidate_nothing_is_claimed():
    told = tell(verdict("no gain", 0.0, 1.0, trial_id="t0"))
    assert told.headline == "No gain: no candidate could be compared with maths"
    assert told.body == ""


def test_why_nothing_was_compared_is_said():
    told = tell({**verdict("no gain", 0.0, 1.0, trial_id="t0"), "reason": "number 3 could not be read: no room"})
    assert told.headline == "No gain: no candidate could be compared with maths"
    assert told.body == "Number 3 could not be read: no room."


@pytest.mark.parametrize(("value", "text"), [(2.25, "+2.2"), (-0.04, "−0.0"), (0.0, "+0.0"), (-10.0, "−10.0")])
def test_points_have_a_sign(value, text):
    assert signed(value) == text


def test_small_p_values_are_bounds():
    assert (p_value(0.0004), p_value(0.0251)) == ("less than 0.001", "0.025")


def test_what_stands_beside_a_verdict_is_told_in_a_sentence_each():
    full = {
        **verdict("gain", 3.1, 0.003, macro_search=0.652),
        "claimed": {"points": 64.04, "sd": 0.52, "optimism": 0.31, "by": "posterior mean"},
        "floors": [{"task": "arc_easy", "floor": 2.0, "points": -0.5, "low": -1.9, "p": 0.02, "kept": "proven"}],
        "below_floor": [{"trial_id": "t9", "number": 9, "tasks": []}],
        "final": {"points": 2.5, "low": 0.4, "high": 4.6, "p": 0.01, "items": 900},
        "contamination": [
            {"label": "maths", "gap": 7.2, "stderr": 1.1},
            {"label": "code", "gap": -0.3, "stderr": 1.2},
        ],
    }
    assert beside(full) == [
        "Before the proof it was believed to be worth 64.0 ± 0.5 % (posterior mean less 0.3 for the search, scored "
        "65.2 % on search items; optimistic).",
        "Floor of 2 points on arc_easy: kept, proven (−0.5 points, at least −1.9).",
        "Candidates skipped as they lost more than a floor allows on search items: 1.",
        "On 900 items kept back and read once: +2.5 points, 95 % interval +0.4 to +4.6.",
        "Search minus held-out accuracy of the parents, in points: maths +7.2 ± 1.1, code −0.3 ± 1.2. A gap far beyond "
        "its error is suspect.",
    ]


def test_older_verdicts_have_nothing_beside_them():
    assert beside(verdict("gain", 3.1, 0.003)) == []


def test_a_last_look_that_failed_says_why():
    assert beside({**verdict("gain", 3.1, 0.003), "final": {"code": "out_of_memory", "message": "no room"}}) == [
        "What was kept back could not be read: no room."
    ]


def test_what_choosing_the_best_of_many_samples_gains_by_chance_stands_beside_the_raw_gain():
    told = verdict("no gain", 0.1, 0.4, macro_search=0.53)
    told["reference"]["macro_search"] = 0.505
    assert beside(told) == []
    told["chance"] = {"candidates": 32, "points": 2.14}
    assert beside(told) == [
        "On search items it is +2.5 points ahead; the best of 32 candidates that are worth nothing is expected to be "
        "+2.1 ahead."
    ]


def test_tasks_that_only_the_confirmation_read_stand_beside_it():
    task = {
        "task": "hellaswag",
        "winner": 0.6,
        "reference": 0.59,
        "points": 1.0,
        "low": -0.5,
        "high": 2.5,
        "items": 500,
    }
    (said,) = beside({**verdict("no gain", 0.8, 0.24), "also": {"tasks": [task]}})
    assert said == (
        "hellaswag, which the search never read: 60.0 % against 59.0 % of the best parent on 500 items, +1.0 points "
        "(95 % interval −0.5 to +2.5)."
    )
    (lost,) = beside({**verdict("no gain", 0.8, 0.24), "also": {"code": "out_of_memory", "message": "no room"}})
    assert "could not be read: no room" in lost
