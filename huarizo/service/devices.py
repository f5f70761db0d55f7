"""Which devices this machine offers, found out without importing torch."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from core.errors import InvalidInputError

PATIENCE_SECONDS = 20.0
DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
_WANTED = re.compile(r"^(?:auto|cpu|cuda|cuda:(?P<number>\d+))$")


@dataclass(frozen=True)
class Device:
    """What one device worker drives: `kind` cpu or cuda, and for cuda what CUDA_VISIBLE_DEVICES shall say."""

    kind: str
    number: int = 0
    visible: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """`cpu`, `cuda-0`, ..."""
        return self.kind if self.kind == "cpu" else f"{self.kind}-{self.number}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a worker and its runner see this device and no other GPU."""
        return {"HUARIZO_DEVICE": self.kind, "CUDA_VISIBLE_DEVICES": self.visible}


CPU = Device("cpu", label="CPU")


def wanted_devices(wish: str) -> tuple[Device, ...]:
    """The devices to start a worker for: every GPU, or the CPU where there is none.

    Args:
        wish: the setting `device`: auto, cpu, cuda or cuda:<n>.

    Raises:
        InvalidInputError: a wish of another form, or one that this machine cannot fulfil.
    """
    form = _WANTED.match(wish)
    if form is None:
        raise InvalidInputError(f"a device is auto, cpu, cuda or cuda:<n>, but got {wish!r}: set HUARIZO_DEVICE")
    if wish == "cpu":
        return (CPU,)
    found = gpus()
    if wish == "auto":
        return found if found and torch_cuda_build() is not None else (CPU,)
    if form["number"] is not None:
        found = tuple(device for device in found if device.number == int(form["number"]))
    if not found:
        raise InvalidInputError(f"device {wish!r} is not on this machine: set HUARIZO_DEVICE to cpu or auto")
    return found


def gpus() -> tuple[Device, ...]:
    """NVIDIA GPUs this process may use, in CUDA's order; CUDA_VISIBLE_DEVICES narrows them as it does for CUDA."""
    narrowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    labels = _labels()
    if narrowed is None:
        return tuple(Device("cuda", number, str(number), label) for number, label in enumerate(labels))
    entries = [entry.strip() for entry in narrowed.split(",") if entry.strip()] if labels else []
    return tuple(Device("cuda", number, entry, f"GPU {entry}") for number, entry in enumerate(entries))


def torch_cuda_build() -> str | None:
    """The CUDA version the installed torch was built for, or None for a CPU build or no torch at all."""
    spec = importlib.util.find_spec("torch")  # finds, but does not import
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def _labels() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return [f"GPU {number}" for number, _ in enumerate(sorted(DRIVER_FOLDER.glob("*")))]
    try:
        answer = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_listing(answer.stdout) if answer.returncode == 0 else []


def parse_listing(listing: str) -> list[str]:
    """GPU names of `nvidia-smi -L`, in order; the indented lines of MIG slices are no GPUs of their own."""
    return [match[1] for match in re.finditer(r"^GPU \d+: (.+?)(?: \(UUID: [^)]*\))?$", listing, re.MULTILINE)]
