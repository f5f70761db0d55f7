"""Verbs in a process of their own: progress, result, failure, and nothing left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from core.errors import HuarizoError, UnknownMethodError
from huarizo.cli.relay import relay

PROGRESS = """
import json, sys
def tell(event, **fields): print(json.dumps({"event": event, **fields}), flush=True)
print("a library's stray words")
for done in range(3): tell("progress", done=done, total=2)
"""


def run(code: str) -> dict[str, object]:
    return relay([sys.executable, "-S", "-c", code], environment=dict(os.environ), title="merge")


def test_the_last_word_is_the_result_and_progress_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    end = run(PROGRESS + "tell('done', weights_digest='abc')")
    assert end == {"event": "done", "weights_digest": "abc"}
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "merge: 2 of 2 100%" in printed.err


def test_an_error_told_is_raised_by_its_code() -> None:
    with pytest.raises(UnknownMethodError, match="no such method"):
        run(PROGRESS + "tell('error', code='unknown_method', message='no such method'); sys.exit(1)")


def test_a_process_that_dies_without_a_word_is_told_with_the_end_of_its_noise() -> None:
    with pytest.raises(HuarizoError, match=r"status 1(?s:.*)ZeroDivisionError"):
        run(PROGRESS + "1 / 0")


def test_an_interrupted_verb_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huarizo.cli.relay._event", interrupt)
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run(code)
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)
