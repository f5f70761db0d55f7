"""What every result carries: library versions, commit, device."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = ("huarizo", "lm_eval", "torch", "transformers", "tokenizers", "datasets", "optuna")


@cache
def versions() -> dict[str, str]:
    """Installed versions of the libraries that shape a result."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def git_commit() -> str | None:
    """The commit of the running checkout; None outside one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except OSError:  # a machine without git
        return None


def provenance(device: Any) -> dict[str, Any]:
    """Versions, commit and device of this process."""
    return {
        "versions": versions(),
        "commit": git_commit(),
        "device": device_name(device),
        "python": platform.python_version(),
    }


def device_name(device: Any) -> str:
    """A name people know: the GPU's, or the CPU's architecture."""
    if getattr(device, "type", "cpu") == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"cpu ({platform.machine()})"
