"""What `huarizo doctor` says of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import Settings
from huarizo.checks import machine
from huarizo.checks.machine import STOCK, datasets, disk, folders, graphics, python_version, torch_build
from huarizo.service.devices import Device
from huarizo.service.places import Places


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUARIZO_HOME", str(tmp_path / "home"))
    return Places.of(Settings())


@pytest.mark.parametrize(("found", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "fail")])
def test_pythons_we_run_on_are_told_from_others(found: tuple[int, int], status: str) -> None:
    assert python_version(found).status == status


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    check = torch_build()
    assert check.status in ("ok", "warn")
    assert check.found[0].isdigit()


def test_a_torch_that_does_not_load_is_a_failure_with_its_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TORCH_PROBE", "raise ImportError('libcudart.so is missing')")
    check = torch_build()
    assert check.status == "fail"
    assert "libcudart.so is missing" in check.found


def test_a_gpu_that_torch_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: (Device("cuda", 0, "0", "NVIDIA H200"),))
    monkeypatch.setattr(machine, "torch_cuda_build", lambda: None)
    check = graphics()
    assert (check.status, check.found) == ("warn", "0: NVIDIA H200; torch is a CPU build")
    monkeypatch.setattr(machine, "torch_cuda_build", lambda: "13.0")
    assert graphics().status == "ok"


@pytest.mark.parametrize(("free", "status"), [(100 << 20, "fail"), (5 << 30, "warn"), (500 << 30, "ok")])
def test_a_full_disk_is_noticed_before_an_export_fails(free: int, status: str, places: Places) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> int:
        asked.append(path)
        return free

    assert disk(places, usage).status == status
    assert asked[0].is_dir()  # the nearest folder that exists, as the artifacts' own may not yet


def test_roots_and_task_folders_that_are_not_there_are_failures(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [check.status for check in folders(places)] == ["ok", "ok"]
    monkeypatch.setenv("HUARIZO_MODEL_ROOTS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HUARIZO_TASK_FOLDERS", str(tmp_path / "neither"))
    roots, tasks = folders(Places.of(Settings()))
    assert (roots.status, tasks.status) == ("fail", "fail")
    assert "nowhere" in roots.found
    assert "HUARIZO_MODEL_ROOTS" in roots.mend
    assert "neither" in tasks.found


def test_models_and_benchmarks_are_counted(places: Places) -> None:
    places.make()
    (places.nursery / "base").mkdir()
    (places.nursery / "base" / "config.json").touch()
    (places.nursery / "tasks" / "mine.yaml").touch()
    roots, tasks = folders(places)
    assert "(1 models)" in roots.found
    assert tasks.found.startswith("1 benchmark")


def test_stock_benchmarks_are_looked_for_split_by_split(tmp_path: Path) -> None:
    assert datasets(None).status == "warn"
    assert datasets(tmp_path / "nowhere").status == "fail"
    for name, splits in STOCK.items():
        (tmp_path / name).mkdir()
        for split in splits:
            (tmp_path / name / f"{split}.parquet").touch()
    assert datasets(tmp_path).status == "ok"
    (tmp_path / "hellaswag" / "train.parquet").unlink()
    check = datasets(tmp_path)
    assert check.status == "warn"
    assert check.found.endswith("without hellaswag/train.parquet")
    assert check.found.startswith("arc_challenge, arc_easy, winogrande in ")
