"""`huarizo nursery`: where it grows, and how jobs find what was grown elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from huarizo.cli import nursery


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def growths(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int, bool]]:
    """What would have been grown; the growth itself is the demo's test."""
    asked: list[tuple[Path, int, bool]] = []

    def grown(folder: Path, seed: int, *, smoke: bool = False) -> dict[str, Any]:
        asked.append((folder, seed, smoke))
        return {"event": "done", "folder": str(folder), "seed": seed, "tasks": {"arc": "nursery_arc"}}

    monkeypatch.setattr(nursery, "grown", grown)
    return asked


def test_by_default_it_grows_where_a_service_finds_it(
    home: Path, growths: list[tuple[Path, int, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    nursery.grow(None, seed=7)
    assert growths == [(home / "models" / "nursery", 7, False)]
    assert "HUARIZO_MODEL_ROOTS" not in capsys.readouterr().out


def test_elsewhere_it_says_how_jobs_find_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nursery.grow(tmp_path / "mine", seed=8, smoke=True)
    said = capsys.readouterr().out
    assert f"HUARIZO_MODEL_ROOTS={tmp_path}" in said
    assert str(tmp_path / "mine" / "tasks") in said


def test_for_machines_it_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nursery.grow(tmp_path / "mine", seed=8, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "mine"),
        "seed": 8,
        "tasks": {"arc": "nursery_arc"},
    }
