"""A virtual environment with mergekit, apart from the project's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: mergekit differs in its numbers from release to release, so its version is part of every golden file.
MERGEKIT = "0.1.5"
TORCH = "torch==2.13.0"
FOLDER = ROOT / "var" / f"mergekit-{MERGEKIT}"


def mergekit_python(folder: Path = FOLDER, torch: str = TORCH) -> Path:
    """The interpreter of the environment, which is made on first use (a minute, and about 1.5 GB).

    Args:
        folder: where it lies; made if it is not complete.
        torch: what pip is asked for before mergekit, so that mergekit does not choose the build.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    python, stamp = folder / "bin" / "python", folder / ".complete"
    if not stamp.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, torch)
        _run(*pip, f"mergekit=={MERGEKIT}", "transformers>=5,<6")
        stamp.touch()
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
