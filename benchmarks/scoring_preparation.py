"""Preparing every task in a fresh process: what a runner that starts anew waits for and holds.

    python -m benchmarks.scoring_preparation ITEMS TOKENIZER CACHE SETTING

prints seconds and gigabytes (10^9 bytes) as JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.claims import ROOT, Report
from benchmarks.items import OFFICIAL, SHOTS
from core.objective import TaskSpec
from evaluation.cache import PlanCache
from evaluation.catalog import TaskFolders
from evaluation.prepare import Prepared, prepare

SETTINGS = {"0-shot": dict.fromkeys(SHOTS, 0), "few-shot": SHOTS}
DOCUMENTS = sum(documents for _, documents, _ in OFFICIAL.values())
#: What is prepared, as it stands in the claims.
NAME = f"{DOCUMENTS:,} documents"
MAX_LENGTH = 2048
#: What happens, with the goals for seconds and for gigabytes.
_STAGES = {"first preparation": (None, None), "loading from the disk": (60.0, 1.0)}
#: Seconds after which a child is given up.
_PATIENCE = 3600


def prepare_all(items: Path, tokenizer: Path, cache: Path, setting: str) -> Prepared:
    """All four tasks, from the disk where they are there."""
    specs = [TaskSpec(task=task, num_fewshot=shots) for task, shots in SETTINGS[setting].items()]
    return prepare(specs, tokenizer, TaskFolders(items), max_length=MAX_LENGTH, cache=PlanCache(cache))


def report_preparation(report: Report, items: Path, tokenizer: Path, cache: Path, setting: str) -> None:
    """Claim what preparing costs a runner: told for the first one, with goals for every later one."""
    for stage, (seconds, memory) in _STAGES.items():
        found = _in_fresh_process(items, tokenizer, cache, setting)
        report.claim(f"{NAME}, {setting}: {stage}, time", found["seconds"], "s", seconds, "lower")
        report.claim(f"{NAME}, {setting}: {stage}, peak memory", found["peak"], "GB", memory, "lower")
        report.note(
            f"{stage}: {found['processor']:.1f} s of processor time; of the memory, {found['libraries']:.2f} GB were "
            "taken once the libraries were imported"
        )


def skip_preparation(report: Report, setting: str, reason: str) -> None:
    """List these claims as not measured."""
    for stage, goals in _STAGES.items():
        for what, goal in zip(("time", "peak memory"), goals, strict=True):
            report.skip(f"{NAME}, {setting}: {stage}, {what}", goal, reason)


def _in_fresh_process(*arguments: Path | str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scoring_preparation", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(f"preparing the documents failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak() -> float:
    """Gigabytes that this process has held at most. (`getrusage` would count its parent's, too.)"""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert match is not None
    return int(match[1]) * 1024 / 1e9


def _main(items: str, tokenizer: str, cache: str, setting: str) -> None:
    torch.set_num_threads(1)
    libraries, begun, spent = _peak(), time.monotonic(), time.process_time()
    prepare_all(Path(items), Path(tokenizer), Path(cache), setting)
    seconds, processor = time.monotonic() - begun, time.process_time() - spent
    print(json.dumps({"seconds": seconds, "processor": processor, "peak": _peak(), "libraries": libraries}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
