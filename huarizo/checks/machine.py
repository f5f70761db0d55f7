"""This machine: Python, torch, GPUs, disk, folders."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huarizo.checks import Check
from huarizo.service.devices import gpus, torch_cuda_build
from huarizo.service.places import Places

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
LOW_DISK, LITTLE_DISK = 1 << 30, 20 << 30
TORCH_SECONDS = 120.0
TORCH_PROBE = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
#: The stock benchmarks and the splits that scoring reads.
STOCK = {
    "arc_challenge": ("test",),
    "arc_easy": ("test",),
    "hellaswag": ("train", "validation"),
    "winogrande": ("train", "validation"),
}


def python_version(found: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is one Huarizo runs on."""
    if PYTHON_FROM <= found < PYTHON_BELOW:
        return Check("Python", "ok", platform.python_version())
    return Check("Python", "fail", ".".join(map(str, found)), "use Python 3.11, 3.12 or 3.13")


def torch_build() -> Check:
    """Whether torch is there and loads; it is imported in a process of its own."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return Check("torch", "fail", "not installed", "install Huarizo's requirements")
    argv = [sys.executable, "-c", TORCH_PROBE]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=TORCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Check("torch", "fail", f"{installed} does not load within {TORCH_SECONDS:g} s", "reinstall torch")
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["no word"])[-1]
        return Check("torch", "fail", f"{installed} does not load: {last}", "reinstall torch")
    _, cuda, available = answer.stdout.split()
    if cuda == "None":
        return Check("torch", "ok", f"{installed}, CPU build")
    if available == "True":
        return Check("torch", "ok", f"{installed}, CUDA {cuda}")
    return Check("torch", "warn", f"{installed}, CUDA {cuda}, but it sees no GPU", "check the driver with nvidia-smi")


def graphics() -> Check:
    """Whether a GPU is there and torch can use it."""
    found = gpus()
    if not found:
        return Check("GPU", "ok", "none, the CPU works")
    names = ", ".join(f"{device.number}: {device.label}" for device in found)
    if torch_cuda_build() is None:
        return Check("GPU", "warn", f"{names}; torch is a CPU build", "install a CUDA build of torch")
    return Check("GPU", "ok", names)


def disk(places: Places, usage: Callable[[Path], int] | None = None) -> Check:
    """Whether there is room for checkpoints."""
    place = next(folder for folder in (places.artifacts, *places.artifacts.parents) if folder.exists())
    free = (usage or (lambda path: shutil.disk_usage(path).free))(place)
    found = f"{free / 2**30:.1f} GiB free for {places.artifacts}"
    if free < LOW_DISK:
        return Check("disk", "fail", found, "free some, or set HUARIZO_ARTIFACTS to another disk")
    if free < LITTLE_DISK:
        return Check("disk", "warn", found, "large checkpoints need more; HUARIZO_ARTIFACTS moves them")
    return Check("disk", "ok", found)


def folders(places: Places) -> Iterator[Check]:
    """Whether models and benchmarks of one's own can be found."""
    own, *given = places.model_roots
    missing = [str(root) for root in given if not root.is_dir()]
    if missing:
        yield Check("model roots", "fail", f"not there: {', '.join(missing)}", "correct HUARIZO_MODEL_ROOTS")
    else:
        near = ("*/config.json", "*/*/config.json")
        found = sum(1 for root in places.model_roots for pattern in near for _ in root.glob(pattern))
        yield Check("model roots", "ok", f"{', '.join(map(str, places.model_roots))} ({found} models)")
    lost = [str(folder) for folder in places.task_folders if not folder.is_dir() and own not in folder.parents]
    if lost:
        yield Check("task folders", "fail", f"not there: {', '.join(lost)}", "correct HUARIZO_TASK_FOLDERS")
        return
    tasks = sum(1 for folder in places.task_folders for _ in folder.glob("*.yaml"))
    hint = "" if tasks else "`huarizo nursery` grows models with benchmarks to try"
    yield Check("task folders", "ok", f"{tasks} benchmark files of your own", hint)


def datasets(folder: Path | None) -> Check:
    """Which of the stock benchmarks have their data on this disk."""
    if folder is None:
        return Check(
            "datasets", "warn", "stock benchmarks are fetched from the hub", "set HUARIZO_DATASETS to a folder"
        )
    if not folder.is_dir():
        return Check("datasets", "fail", f"{folder} is not there", "correct HUARIZO_DATASETS")
    lacking = {
        name: [s for s in splits if not (folder / name / f"{s}.parquet").is_file()] for name, splits in STOCK.items()
    }
    lacking = {name: splits for name, splits in lacking.items() if splits}
    there = ", ".join(name for name in STOCK if name not in lacking) or "none"
    if not lacking:
        return Check("datasets", "ok", f"{there} in {folder}")
    wanted = ", ".join(f"{name}/{split}.parquet" for name, splits in lacking.items() for split in splits)
    return Check("datasets", "warn", f"{there} in {folder}; without {wanted}", "add them, or score other tasks")
