"""Watching a job: what is shown, and that a restart of the service is waited out."""

from __future__ import annotations

import io
from collections import deque
from typing import Any

import httpx
import pytest
from rich.console import Console

from core.errors import ServiceUnavailableError
from huarizo.cli import watch
from huarizo.cli.patience import patiently
from huarizo.cli.watch import Lines, follow, happened, own_generator, panel, status_line
from huarizo.client import ApiProblem, Client


def job(state: str = "running", done: int = 3, **changes: Any) -> dict[str, Any]:
    progress = {
        "trials": {"scored": done, "running": 1},
        "budget": [
            {"limit": "trials", "used": done, "allowed": 40, "share": done / 40},
            {"limit": "seconds", "used": 12.0, "allowed": 600.0, "share": 0.02},
        ],
        "items_scored": 12345,
        "eta_seconds": 240.0,
        "best": {"number": 2, "label": "ties", "macro": 0.512},
        "best_parent": {"number": 0, "label": "arc", "macro": 0.401},
        **changes,
    }
    return {"id": "job_1", "name": "three skills", "state": state, "progress": progress, "failure": None}


def event(identity: int) -> dict[str, Any]:
    payload = {"state": "scored", "number": identity, "macro": 0.5}
    return {"id": identity, "kind": "trial_state", "payload": payload, "created_at": "2026-11-20T10:00:00.000Z"}


def text_of(renderable: Any) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_panel_shows_state_budget_best_and_the_last_events() -> None:
    text = text_of(panel(job(), deque([event(1), event(2)])))
    assert "three skills: running, about 4 min left" in text
    assert "3 / 40" in text
    assert "1 running, 3 scored" in text
    assert "12,345 scored" in text
    assert "51.2 % on search items (#2 ties), best parent 40.1 % (arc)" in text
    assert "candidate #2 scored 50.0 %" in text


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        ("job_state", {"state": "confirming"}, "job confirming"),
        ("trial_state", {"state": "running", "number": 3, "macro": None}, "candidate #3 running"),
        ("trial_target", {"number": 3, "target_items": 200}, "candidate #3 goes on to 200 items a task"),
        (
            "reference",
            {"label": "uniform linear", "recipe_digest": "d", "reason": "the study's first uniform merge"},
            "everybody is compared with uniform linear: the study's first uniform merge",
        ),
        (
            "rungs",
            {"kappa": 812.4, "rungs": [200, 1000], "reason": "it pays"},
            "a build costs 812 items; rungs of 200, 1000 items a task: it pays",
        ),
        ("rungs", {"kappa": None, "rungs": [50], "reason": "as asked"}, "rungs of 50 items a task: as asked"),
        ("finalists", {"ranked": ["a", "b"]}, "2 finalists ranked, held-out items are opened"),
        ("strategy", {"name": "tpe", "reason": "mixed"}, "strategy name=tpe reason=mixed"),
    ],
)
def test_events_are_told_in_words(kind: str, payload: dict[str, Any], words: str) -> None:
    assert happened(kind, payload) == words


def test_names_with_brackets_are_shown_as_they_are() -> None:
    strange = job()
    strange["name"] = "[bold]x[/nothing]"
    assert "[bold]x[/nothing]: running" in text_of(panel(strange, deque()))


def test_the_line_says_the_same_and_leaves_out_the_clock() -> None:
    assert status_line(job()) == (
        "running  trials 3/40  12,345 items scored  best 51.2 % on search items (#2 ties), best parent 40.1 % (arc)"
    )
    assert status_line(job("preparing", best=None, best_parent=None)).endswith("best none yet")


def test_plain_lines_come_when_something_moved_and_not_too_often() -> None:
    now = [0.0]
    written: list[str] = []
    lines = Lines(written.append, clock=lambda: now[0])
    for second, done, state in ((0.0, 1, "running"), (0.5, 2, "running"), (4.0, 2, "running"), (9.0, 2, "running")):
        now[0] = second
        lines.update(job(state, done), deque())
    lines.update(job("succeeded", 2), deque())
    assert [line.split("  ")[:2] for line in written] == [
        ["running", "trials 1/40"],
        ["running", "trials 2/40"],
        ["succeeded", "trials 2/40"],
    ]


def test_following_ends_with_the_job_and_outlives_a_restart_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["ok", "away", "busy", "ok", "ok"])
    asked_after: list[str] = []

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            asked_after.append(request.url.params["after"])
            after = int(request.url.params["after"])
            return httpx.Response(200, json={"items": [event(after + 1), event(after + 2)]})
        match next(answers):
            case "away":
                raise httpx.ConnectError("refused", request=request)
            case "busy":
                return httpx.Response(503, json={"code": "service_unavailable", "title": "not ready"})
        state = "succeeded" if len(asked_after) == 2 else "running"
        return httpx.Response(200, json=job(state))

    monkeypatch.setattr(watch, "patiently", lambda ask: patiently(ask, first_pause=0.0))
    client = Client("http://service.test", transport=httpx.MockTransport(service))
    out = io.StringIO()
    ended = follow(client, "job_1", Console(file=out, width=200), poll_seconds=0.0)
    assert ended["state"] == "succeeded"
    assert asked_after == ["0", "2", "4"]
    assert out.getvalue().splitlines()[-1].startswith("succeeded")


def test_patience_ends() -> None:
    pauses: list[float] = []

    def away() -> None:
        raise ServiceUnavailableError("away")

    with pytest.raises(ServiceUnavailableError):
        patiently(away, seconds=12.0, sleep=pauses.append)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0]


def test_an_answer_that_no_repetition_can_change_is_final_at_once() -> None:
    asked: list[int] = []

    def missing() -> None:
        asked.append(1)
        raise ApiProblem(404, "not_found", "No such row")

    with pytest.raises(ApiProblem):
        patiently(missing, sleep=lambda _seconds: None)
    assert len(asked) == 1


def test_a_training_shows_its_steps_and_its_loss_in_place_of_candidates() -> None:
    steps = {"limit": "training_steps", "used": 60, "allowed": 100, "share": 0.6}
    shown = job(budget=[steps], best=None, best_parent=None) | {"training": {"loss": 0.12345}}
    assert status_line(shown) == "running  steps 60/100  loss 0.1235"
    text = text_of(panel(shown, deque()))
    assert "60 / 100" in text and "loss        0.1235" in text and "candidates" not in text
    assert happened("sample_passed", {"perplexity": 1.00049}).endswith("is 1.000 times its base's")
    assert happened("training", {"done": 60, "of": 100, "loss": 0.5}) == "step 60 of 100, loss 0.5"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"state": "awaited"}, "trained after 24 candidates, 7 have ended"),
        ({"state": "training"}, "in training, step 1,200 of 2,700"),
        ({"state": "ready", "artifact": "artifact_1"}, "abababababababab…, artifact artifact_1"),
        (
            {"state": "failed", "failure": {"code": "out_of_memory", "message": "too large"}},
            "failed, the search goes on without it: out_of_memory: too large",
        ),
        ({"state": "not trained"}, "not trained: the search ended before"),
    ],
)
def test_what_becomes_of_a_search_s_own_generator_is_told_in_words(told, words):
    training = {"done": 1200, "steps": 2700, "generator": "ab" * 32}
    assert own_generator({"train_after": 24, "ended": 7, "training": training, **told}) == words


def test_the_events_of_a_search_s_own_generator_are_told_in_words():
    assert happened("generator_planned", {"elite": [4, 3]}) == "a generator is to be trained, on #4, #3"
    assert happened("generator_planned", {"elite": []}) == "a generator is to be trained, on models alone"
    assert happened("generator_ready", {"generator": "ab" * 32}).startswith(
        "the generator is there (abababababababab…)"
    )
    assert happened("generator_failed", {"code": "x", "message": "y"}).endswith("without samples: x: y")
