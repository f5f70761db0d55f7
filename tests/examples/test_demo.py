"""The demo: its report, and one whole run on tiny models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import ServiceUnavailableError
from core.jobs import SearchJob, check_job
from core.settings import Settings
from examples import demo
from huarizo.cli.verdict import Gain, Report, Row

REPOSITORY = Path(__file__).parents[2]
SCORES: dict[str, dict[str, float | None]] = {"nursery_arc": {"search": 0.5, "heldout": 0.25}}
PARENT = Row("base", SCORES, 0.5, 0.25)
WINNER = Row("#4 ties", SCORES, 0.6, 0.5, {"seed": 7})


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that root's servers, which run as another user, can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="hz-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_the_report_has_exactly_the_promised_fields() -> None:
    report = Report("gain", (PARENT,), WINNER, Gain(25.0, 10.0, 40.0, 0.001), None, 40, 90.5, 3, {"id": "artifact_1"})
    assert demo.told(report, Path("/var/demo/checkpoint")) == {
        "parents": [{"name": "base", "scores": SCORES, "macro_heldout": 0.25}],
        "winner": {"recipe": {"seed": 7}, "scores": SCORES, "macro_heldout": 0.5},
        "gain_heldout": {"points": 25.0, "low": 10.0, "high": 40.0, "p": 0.001},
        "trials": 40,
        "seconds": 90.5,
        "artifact": "/var/demo/checkpoint",
    }


def test_a_search_without_a_verdict_reports_nothing_it_has_not_got() -> None:
    told = demo.told(Report(None, (PARENT,), None, None, None, 2, None, None, None), None)
    assert (told["winner"], told["gain_heldout"], told["artifact"]) == (None, None, None)


def test_the_job_file_is_valid_and_changes_only_where_asked() -> None:
    plain, changed = demo.job_of(None, None), demo.job_of(11, 3)
    check_job(SearchJob.model_validate(plain))
    assert (changed["seed"], changed["budget"]["trials"]) == (11, 3)
    assert {name for name in plain if plain[name] != changed[name]} == {"seed", "budget"}


def test_a_service_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    log.write_text("huarizo: conflict: the port is taken\n")
    with subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(1)"]) as process:
        process.wait()
        with pytest.raises(ServiceUnavailableError, match="the port is taken"):
            demo.wait_until_ready(process, tmp_path, log)


def test_a_whole_run_ends_with_a_report_and_without_any_process(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(open_folder / "home"))
    folder = open_folder / "var" / "demo"
    assert demo.main(["--smoke", "--trials", "2", "--folder", str(folder)]) == 0
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert [parent["name"] for parent in report["parents"]] == ["base", "arc", "wino", "hella"]
    tasks = {"nursery_arc", "nursery_winogrande", "nursery_hellaswag"}
    for row in (*report["parents"], report["winner"]):
        assert set(row["scores"]) == tasks
        sides = [share for scores in row["scores"].values() for share in scores.values()]
        assert all(0.0 <= share <= 1.0 for share in sides)
        assert row["macro_heldout"] == pytest.approx(sum(s["heldout"] for s in row["scores"].values()) / 3)
    assert report["trials"] == 2
    gain, best = report["gain_heldout"], max(parent["macro_heldout"] for parent in report["parents"])
    assert gain["low"] <= gain["points"] <= gain["high"]
    assert gain["points"] >= 100 * (report["winner"]["macro_heldout"] - best) - 1e-9
    assert "over the best parent on held-out items" in capsys.readouterr().out
    assert _running_over(open_folder) == []


def _running_over(folder: Path) -> list[list[str]]:
    """Command lines of processes that were told of this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and str(folder) in " ".join(process.environ().values()):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found
