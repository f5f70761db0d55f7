"""The result table says what was proved, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from huarizo.cli.verdict import Gain, Luck, further, percent, report_of, sentence, shown


def score(task: str, value: float) -> dict[str, Any]:
    return {"task": task, "metric": "acc", "value": value, "stderr": 0.01, "n": 100}


def trial(number: int, origin: str, label: str, search: float, heldout: float | None) -> dict[str, Any]:
    return {
        "id": f"trial_{number}",
        "number": number,
        "origin": origin,
        "label": label,
        "scores": [score("arc", search), score("wino", search + 0.1)],
        "macro": search + 0.05,
        "heldout": [] if heldout is None else [score("arc", heldout), score("wino", heldout)],
        "macro_heldout": heldout,
    }


def job(verdict: str | None = "gain") -> dict[str, Any]:
    return {
        "id": "job_1",
        "started_at": "2026-11-20T10:00:00.000Z",
        "finished_at": "2026-11-20T10:02:30.500Z",
        "verdict": verdict
        and {
            "verdict": verdict,
            "winner": {"trial_id": "trial_2"},
            "points": 3.25,
            "low": 1.0,
            "high": 5.5,
            "p": 0.0042,
            "heldout_reads": 7,
        },
    }


TRIALS = [
    trial(0, "parent", "base", 0.30, 0.31),
    trial(1, "parent", "arc", 0.40, 0.41),
    trial(2, "proposed", "ties", 0.50, 0.45),
    trial(3, "proposed", "linear", 0.20, None),
]


def text_of(renderable: Any) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_the_report_gathers_parents_winner_gain_and_time() -> None:
    artifacts = [{"id": "art_0", "trial_id": "trial_3"}, {"id": "art_1", "trial_id": "trial_2"}]
    report = report_of(job(), TRIALS, artifacts)
    assert [row.name for row in report.parents] == ["base", "arc"]
    assert report.parents[1].scores == {
        "arc": {"search": 0.40, "heldout": 0.41},
        "wino": {"search": 0.5, "heldout": 0.41},
    }
    assert report.winner is not None
    assert (report.winner.name, report.winner.macro_heldout) == ("#2 ties", 0.45)
    assert report.gain == Gain(3.25, 1.0, 5.5, 0.0042)
    assert (report.trials, report.seconds) == (2, 150.5)
    assert report.artifact == artifacts[1]


def test_the_table_has_every_parent_and_the_winner_on_both_kinds_of_items() -> None:
    lines = text_of(shown(report_of(job(), TRIALS))).splitlines()
    rows = {line.split()[1]: line for line in lines if "/" in line and "│" in line}
    assert "30.0 / 31.0" in rows["base"]
    assert "40.0 / 31.0" in rows["base"]
    assert "35.0 / 31.0" in rows["base"]
    assert "50.0 / 45.0" in rows["winner"]
    assert lines[-1] == (
        "gain: +3.25 points over the best parent on held-out items "
        "(95 % interval +1.00 to +5.50, p = 0.0042, held-out items read 7 times)"
    )


@pytest.mark.parametrize("verdict", ["no gain", "worse"])
def test_a_candidate_without_a_proved_gain_is_not_called_a_winner(verdict: str) -> None:
    text = text_of(shown(report_of(job(verdict), TRIALS)))
    assert "winner" not in text
    assert "best candidate #2 ties" in text
    assert f"{verdict}: +3.25" in text


def test_without_a_verdict_nothing_is_claimed() -> None:
    report = report_of({**job(None), "finished_at": None}, TRIALS)
    assert report.winner is None
    assert report.gain is None
    assert report.seconds is None
    assert sentence(report).startswith("no verdict")


def test_without_a_comparison_no_difference_is_claimed() -> None:
    lost = job("no gain")
    lost["verdict"] |= {"points": 0.0, "reason": "the first-ranked candidate could not be read"}
    report = report_of(lost, TRIALS)
    assert report.gain is None and sentence(report).startswith("no verdict")


def test_beside_the_verdict_stands_what_choosing_the_best_gains_by_chance() -> None:
    sampled = job("no gain")
    sampled["verdict"]["winner"]["macro_search"] = 0.55
    sampled["verdict"] |= {
        "reference": {"trial_id": "trial_1", "macro_search": 0.535},
        "chance": {"candidates": 40, "a": 2.16, "stderr": 0.9, "correlation": 0.3, "points": 1.63},
    }
    report = report_of(sampled, TRIALS)
    assert report.luck == Luck(pytest.approx(1.5), 40, 1.63)
    last = text_of(shown(report)).splitlines()[-1]
    assert last == (
        "on search items +1.50 points over the best parent; the best of 40 candidates that are worth nothing is "
        "expected to be +1.63 ahead"
    )


def test_a_search_that_sampled_nothing_says_nothing_of_chance() -> None:
    assert report_of(job(), TRIALS).luck is None
    nothing = job("no gain")
    nothing["verdict"] |= {"chance": None, "reference": {"trial_id": "trial_1", "macro_search": None}}
    assert report_of(nothing, TRIALS).luck is None


def test_a_parent_that_wins_keeps_its_name() -> None:
    told = job("no gain")
    told["verdict"]["winner"]["trial_id"] = "trial_1"
    report = report_of(told, TRIALS)
    assert report.winner is not None
    assert report.winner.name == "arc"


def test_a_missing_score_is_a_dash() -> None:
    assert percent(None) == "–"
    assert percent(0.12345) == "12.3"


def test_tasks_that_only_the_confirmation_read_are_told_in_a_line_each():
    task = {"task": "hellaswag", "points": 1.0, "low": -0.5, "high": 2.5, "items": 5000}
    (said,) = further({"tasks": [task]})
    assert said == (
        "hellaswag, never read by the search: +1.00 points over the best parent (95 % interval -0.50 to +2.50, "
        "5,000 items)"
    )
    assert further({}) == ()
    assert further({"code": "x", "message": "no room"}) == (
        "the tasks that the search never read could not be read: no room",
    )
