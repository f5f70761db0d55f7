"""Builds against mergekit, which runs in a process and an environment of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.claims import Report
from benchmarks.merging_parents import MEASURED, Family
from benchmarks.merging_yardstick import Copying, candidates, params, seconds, settled
from benchmarks.oracle.venv import MERGEKIT, mergekit_python
from merging.compiled import Compiler
from merging.resident import Resident

#: How many times faster than mergekit.
AGAINST = {"linear": 10, "slerp": 10, "task_arithmetic": 10, "ties": 5, "dare_ties": 5}
#: Processes of mergekit's that are measured.
PROCESSES = 3


@contextmanager
def mergekit() -> Iterator[Callable[[dict[str, Any]], float]]:
    """mergekit in a process of its own; gives a function that merges and tells the seconds."""
    script = Path(__file__).with_name("merging_peer.py")
    command = [str(mergekit_python()), str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def merge(wanted: dict[str, Any]) -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(wanted) + "\n")
            process.stdin.flush()
            return float(json.loads(process.stdout.readline())["seconds"])

        try:
            yield merge
        finally:
            assert process.stdin is not None
            process.stdin.close()


def in_memory(family: Family, method: str, number: int) -> dict[str, Any]:
    """The candidate for mergekit's library, parents loaded."""
    own = params(method, number, 2)
    names = ("a", "b") if method in ("linear", "slerp") else ("base", "a", "b")
    base = {"linear": None, "slerp": "a"}.get(method, "base")
    # The base takes no values, but a mapping must name every input.
    values = {
        key: {"base": 1.0, **value} if isinstance(value, dict) and base == "base" else value
        for key, value in own.items()
    }
    folders = {name: str(family.folder / name) for name in names}
    what = {"folders": folders, "base": base, "method": method, "parameters": values, "dtype": family.dtype}
    return {"way": "memory", **what}


def through_files(family: Family, method: str, number: int, out: Path) -> dict[str, Any]:
    """The candidate as mergekit's configuration."""
    own = params(method, number, 2)
    config: dict[str, Any] = {"merge_method": method, "dtype": family.dtype}
    if method == "slerp":
        config |= {"base_model": str(family.folder / "a"), "parameters": {"t": own.pop("t")}}
    elif method != "linear":
        config["base_model"] = str(family.folder / "base")
    named = [(str(family.folder / n), {k: v[n] for k, v in own.items()}) for n in ("a", "b")]
    config["models"] = [{"model": folder, "parameters": values} for folder, values in named]
    return {"way": "files", "config": config, "out": str(out)}


def against_mergekit(report: Report, folder: Path, compilers: Mapping[str, Compiler]) -> None:
    """A candidate until it can be scored, here and there, one after the other."""
    family = Family(folder / "bfloat16", MEASURED, "bfloat16")
    processes = 1 if report.quick else PROCESSES
    report.note(
        f"mergekit {MERGEKIT} runs in an environment of its own, up to a live model that holds the merge: in memory "
        "(merge_state_dicts over loaded parents), and through files (a configuration merged and loaded). Goals are set "
        "against the faster of the two. Imports and the first merge of each are not counted. Its plan_in_memory, of "
        f"the deprecated mergekit-evolve, fails with the pydantic it installs. Medians are over {processes} of its "
        "processes, one after the other: where their memory lies moves its times by half"
    )
    rivals = {method: Rival(family, method, compilers["always"]) for method in AGAINST}
    for _ in range(processes):
        with mergekit() as merge:
            for rival in rivals.values():
                rival.measure(merge, folder / "theirs")
    for method, goal in AGAINST.items():
        by_memory, by_files, at_most = map(statistics.median, rivals[method].ratios)
        report.claim(f"{method}, times as fast as mergekit", min(by_memory, by_files), "x", goal)
        report.claim(f"{method}, times as fast as mergekit in memory", by_memory, "x")
        report.claim(f"{method}, times as fast as mergekit through files", by_files, "x")
        report.claim(f"{method}, a plain copy of as many bytes against mergekit in memory", at_most, "x")


class Rival:
    """One method, here and with mergekit.

    Attributes:
        ratios: mergekit's seconds in memory by ours, its seconds through files by ours, and its seconds in memory by
            those of the faster of two plain copies of as many bytes.
    """

    def __init__(self, family: Family, method: str, compiler: Compiler) -> None:
        self.ratios: tuple[list[float], list[float], list[float]] = ([], [], [])
        self._family, self._method = family, method
        self._resident, self._found = Resident(family.parents(), compiler=compiler), candidates(family, method, 2)
        self._copying = Copying(family.bytes)
        # A copy moves the model twice, a build once per source and once for the result.
        self._copies = (3 + (method not in ("linear", "slerp"))) / 2
        self._number = 0

    def measure(self, merge: Callable[[dict[str, Any]], float], out: Path) -> None:
        """With one process of mergekit's, whose first merge of either way is not counted."""
        memory, files, limit = self.ratios
        for counted in range(4):
            theirs, ours = self._both(merge, in_memory(self._family, self._method, self._number))
            copied = self._copies * min(self._copying(), self._copying.past())
            if counted:
                memory.append(theirs / ours)
                limit.append(theirs / copied)
        for counted in range(2):
            theirs, ours = self._both(merge, through_files(self._family, self._method, self._number, out))
            if counted:
                files.append(theirs / ours)

    def _both(self, merge: Callable[[dict[str, Any]], float], wanted: dict[str, Any]) -> tuple[float, float]:
        self._number += 1
        theirs = settled(lambda: merge(wanted))
        return theirs, settled(lambda: seconds(lambda: self._resident.build(next(self._found))))
