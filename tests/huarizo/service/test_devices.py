"""GPUs are found without torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import InvalidInputError
from huarizo.service import devices
from huarizo.service.devices import CPU, Device, gpus, parse_listing, torch_cuda_build, wanted_devices

LISTING = """GPU 0: NVIDIA H200 (UUID: GPU-9c1a1b1e-0000-0000-0000-000000000000)
  MIG 1g.18gb     Device  0: (UUID: MIG-11111111-0000-0000-0000-000000000000)
GPU 1: NVIDIA RTX A6000 (UUID: GPU-7d2f0000-0000-0000-0000-000000000000)
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(devices, "DRIVER_FOLDER", tmp_path)


def test_the_driver_s_listing_names_gpus_and_slices_are_not_gpus() -> None:
    assert parse_listing(LISTING) == ["NVIDIA H200", "NVIDIA RTX A6000"]
    assert parse_listing("No devices found.\n") == []


@pytest.mark.usefixtures("two_gpus")
def test_every_gpu_gets_its_own_number() -> None:
    assert gpus() == (Device("cuda", 0, "0", "NVIDIA H200"), Device("cuda", 1, "1", "NVIDIA RTX A6000"))


@pytest.mark.usefixtures("two_gpus")
def test_what_cuda_visible_devices_hides_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [device.visible for device in gpus()] == ["1"]
    assert wanted_devices("cuda:0")[0].environment["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == ()


@pytest.mark.usefixtures("two_gpus")
def test_a_wish_names_one_gpu_or_all_or_the_cpu() -> None:
    assert [device.number for device in wanted_devices("cuda")] == [0, 1]
    assert [device.number for device in wanted_devices("cuda:1")] == [1]
    assert wanted_devices("cpu") == (CPU,)
    with pytest.raises(InvalidInputError, match="not on this machine"):
        wanted_devices("cuda:2")


@pytest.mark.usefixtures("two_gpus")
def test_auto_takes_gpus_only_if_torch_can_drive_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "torch_cuda_build", lambda: "13.0")
    assert len(wanted_devices("auto")) == 2
    monkeypatch.setattr(devices, "torch_cuda_build", lambda: None)
    assert wanted_devices("auto") == (CPU,)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert wanted_devices("auto") == (CPU,)
    with pytest.raises(InvalidInputError, match="HUARIZO_DEVICE"):
        wanted_devices("cuda")


def test_a_wish_of_another_form_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'gpu0'"):
        wanted_devices("gpu0")


@pytest.mark.parametrize(
    ("line", "build"), [("cuda: Optional[str] = None", None), ("cuda: Optional[str] = '13.0'", "13.0")]
)
def test_torch_s_cuda_build_is_read_without_importing_torch(
    line: str, build: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "version.py").write_text(f"__all__ = ['cuda']\n{line}\nhip: Optional[str] = '6.0'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "torch", raising=False)
    assert torch_cuda_build() == build
