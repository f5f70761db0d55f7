"""Where a service keeps its things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.settings import Settings
from huarizo.service.places import Places, code_environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_everything_lies_under_the_data_home_by_default(home: Path) -> None:
    places = Places.of(Settings())
    assert places.model_roots == (home / "models",)
    assert places.nursery == home / "models" / "nursery"
    assert places.task_folders == (home / "models" / "nursery" / "tasks",)
    assert places.artifacts == home / "artifacts"
    assert places.logs == home / "logs"


def test_the_users_roots_come_after_our_own_and_their_nurseries_are_found(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    (mine / "nursery" / "tasks").mkdir(parents=True)
    monkeypatch.setenv("HUARIZO_MODEL_ROOTS", os.pathsep.join([str(mine), str(other)]))
    places = Places.of(Settings())
    assert places.model_roots == (home / "models", mine, other)
    assert places.task_folders == (home / "models" / "nursery" / "tasks", mine / "nursery" / "tasks")


@pytest.mark.usefixtures("home")
def test_task_folders_of_the_user_stand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUARIZO_TASK_FOLDERS", str(tmp_path))
    assert Places.of(Settings()).task_folders == (tmp_path,)


@pytest.mark.usefixtures("home")
def test_relative_folders_mean_the_callers_working_folder_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUARIZO_MODEL_ROOTS", "models")
    monkeypatch.setenv("HUARIZO_DATASETS", "data")
    environment = Places.of(Settings()).environment()
    assert environment["HUARIZO_MODEL_ROOTS"].split(os.pathsep)[1] == str(tmp_path / "models")
    assert environment["HUARIZO_DATASETS"] == str(tmp_path / "data")


def test_the_environment_describes_the_same_places(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places.of(Settings())
    for name, value in places.environment().items():
        monkeypatch.setenv(name, value)
    assert Places.of(Settings()) == places


def test_a_nursery_grown_under_a_running_service_has_its_folder_from_the_start(home: Path) -> None:
    places = Places.of(Settings())
    places.make()
    assert (home / "models" / "nursery" / "tasks").is_dir()
    assert places.artifacts.is_dir()
    assert places.logs.is_dir()


def test_processes_find_the_code_first_and_then_what_the_caller_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    first, *rest = code_environment()["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "huarizo" / "service" / "places.py").is_file()
    assert rest == ["/somewhere"]
