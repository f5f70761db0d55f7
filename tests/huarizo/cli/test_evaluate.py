"""`huarizo evaluate` starts a process and prints what it found; what that process does is tested with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidInputError, UnknownNameError
from huarizo.cli import evaluate as verb
from huarizo.cli.evaluate import Options, evaluate


def score(task: str, metric: str, value: float | None, **changes: Any) -> dict[str, Any]:
    found = {"task": task, "num_fewshot": 5, "metric": metric, "filter": "none", "value": value, "stderr": 0.0123}
    found |= {"n": 1267, "documents": 1267, "fingerprint": "0123456789abcdef", "tasks": 0, "in_macro": False}
    return found | changes


REPORT = {
    "event": "done",
    "protocol": {"name": "open-llm-v1-core"},
    "model": {"ref": "local:a", "weights_digest": "w" * 64},
    "full": True,
    "limit": None,
    "scores": [
        score("winogrande", "acc", 0.51234, in_macro=True),
        score("mmlu", "acc", 0.25, tasks=57, n=14042, documents=14042),
        score("gsm8k", "exact_match", None, filter="strict-match", stderr=None),
    ],
    "macro": {"value": 0.5, "stderr": 0.25, "tasks": 3},
    "notes": ["protocol open-llm-v1-core: Three of the six tasks."],
    "items": 1267,
    "scoring_seconds": 2.0,
    "items_per_second": 633.5,
    "dtype": "float32",
    "device": "cpu (x86_64)",
    "output": "/tmp/report.json",
}


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The evaluating process replaced: `end` is what it answers, `argv` and `environment` what it was given."""
    seen: dict[str, Any] = {"end": REPORT}

    def relay(argv: list[str], *, environment: dict[str, str], title: str) -> dict[str, Any]:
        seen.update(argv=argv, environment=environment, title=title)
        return dict(seen["end"])

    monkeypatch.setattr(verb, "relay", relay)
    return seen


def test_options_reach_the_evaluating_process(process: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options(
        "search", " coats, pages ,", 2, 30, "cpu", "bfloat16", 512, Path("report.json"), tmp_path / "samples"
    )
    evaluate("local:a", options)
    words = process["argv"][process["argv"].index("workers.runner.evaluate") + 1 :]
    assert words == [
        "local:a", "--protocol", "search", "--tasks", "coats,pages", "--num-fewshot", "2", "--limit", "30", "--device",
        "cpu", "--dtype", "bfloat16", "--batch-tokens", "512", "--output", str(tmp_path / "report.json"),
        "--log-samples", str(tmp_path / "samples"),
    ]  # fmt: skip
    assert process["environment"]["HUARIZO_MODEL_ROOTS"].split(":")[0] == str(tmp_path)


def test_the_table_has_every_number_its_protocol_and_the_mean(process: dict[str, Any], capsys: Any) -> None:
    evaluate("local:a", Options("open-llm-v1-core"))
    told = capsys.readouterr()
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert lines[0] == "local:a protocol open-llm-v1-core"
    assert "winogrande 5 acc * 0.5123 ± 0.0123 1,267 0123456789ab" in lines
    assert "mmlu (57 tasks) 5 acc 0.2500 ± 0.0123 14,042 0123456789ab" in lines
    assert "gsm8k 5 exact_match (strict-match) not a number 1,267 0123456789ab" in lines
    assert "mean of the 3 scores marked * 0.5000 ± 0.2500" in lines
    assert f"weights {'w' * 64}" in lines and "report /tmp/report.json" in lines
    assert "1,267 items in 2.0 s, 633.5 items/s, float32 on cpu (x86_64)" in lines
    assert "note: protocol open-llm-v1-core: Three of the six tasks." in told.err


def test_a_limit_is_said_in_the_first_line_and_has_no_mean(process: dict[str, Any], capsys: Any) -> None:
    cut = [score("winogrande", "acc", 0.5, n=30)]
    process["end"] = {**REPORT, "full": False, "limit": 30, "macro": None, "scores": cut}
    evaluate("local:a", Options("open-llm-v1-core", limit=30))
    out = capsys.readouterr().out
    assert "NOT A FULL SCORE (--limit 30)" in out.splitlines()[0]
    assert "30 of 1,267" in out and "mean of" not in out


def test_json_is_the_whole_report_and_nothing_else(process: dict[str, Any], capsys: Any) -> None:
    evaluate("local:a", Options(tasks="winogrande"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {key: value for key, value in REPORT.items() if key != "event"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (Options("serch", "a"), UnknownNameError, "did you mean 'search'"),
        (Options(), InvalidInputError, "--tasks"),
        (Options("open-llm-v1-core", "gsm8k"), InvalidInputError, "gsm8k"),
        (Options("open-llm-v1-core", num_fewshot=3), InvalidInputError, "shots"),
        (Options(tasks="a,b,a"), InvalidInputError, "once"),
    ],
)
def test_what_does_not_go_together_is_refused_without_starting_a_process(
    process: dict[str, Any], options: Options, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate("local:a", options)
    assert "argv" not in process
