"""How fast candidates are built: against the memory, against mergekit, and against themselves.

    python -m benchmarks.merging [--quick] [--only PART ...] [--json FILE]

A build reads each source byte once and writes each output byte once; what it reaches is a fraction of the bandwidth of
a plain copy, measured between the builds of the same run. Candidates differ in every weight and density from those
before; statistics of the parents are warm. The model is a Llama of 32 layers and 160 M weights. What a build reaches
less what it costs however small its tensors are (the median build of a model of as many tensors and next to no weights)
is told beside; the fixed cost of a candidate has resolving its recipe in it. Parts are
measured one after the other, and each replaces its own figures in the file.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims import Report
from benchmarks.merging_parents import MEASURED, NARROW, Family, Shape
from benchmarks.merging_rival import against_mergekit
from benchmarks.merging_yardstick import Copying, candidates, params, seconds, settled
from benchmarks.parts import measured
from core.recipe.resolved import ResolvedRecipe
from merging.compiled import Compiler
from merging.export import export
from merging.resident import Resident

#: (fp32, bf16) goals of the compiled build, by method.
NEAR_COPY, DROPPING, TRIMMING = (0.8, 0.8), (0.6, 0.4), (0.35, 0.25)
GOALS = {
    "linear": NEAR_COPY,
    "slerp": NEAR_COPY,
    "task_arithmetic": NEAR_COPY,
    "dare_linear": DROPPING,
    "dare_ties": DROPPING,
    "ties": TRIMMING,
    "della": TRIMMING,
    "breadcrumbs": TRIMMING,
}
#: The same without a compiler, for the methods whose arithmetic is next to nothing.
PLAIN_GOAL = (0.4, 0.2)
DTYPES = ("float32", "bfloat16")
#: Weights of about 2 GB in float32.
LARGE = Shape(layers=16, width=1472, inner=4096, heads=23, vocabulary=32_000)
MEMORY = 768 << 20
#: Layer groups of a candidate that is changed in one of them.
GROUPS = 4
#: Weights of about 16 GB in bfloat16: a Llama of 8 B.
HUGE = Shape(layers=32, width=4096, inner=14_336, heads=32, vocabulary=128_256)


def fixed_cost(resident: Resident, found: Iterator[ResolvedRecipe], rounds: int, *, resolving: bool = False) -> float:
    """Seconds of a build of next to no weights, with what it takes to resolve its recipe if that is asked for."""

    def once() -> float:
        begun = time.perf_counter()
        recipe = next(found)
        resolved = time.perf_counter()
        resident.build(recipe)
        return time.perf_counter() - (begun if resolving else resolved)

    for _ in range(3):
        once()
    return statistics.median(once() for _ in range(rounds))


def fractions(
    resident: Resident, found: Iterator[ResolvedRecipe], sources: int, copying: Copying, rounds: int, fixed: float
) -> tuple[float, float, float]:
    """Shares of the copy bandwidth, medians over rounds.

    Returns:
        Of whole builds; of builds less the fixed cost; of whole builds, of that of a copy past the caches.
    """
    shares = []
    for _ in range(rounds):
        recipe = next(found)
        before = copying()
        taken = settled(lambda recipe=recipe: seconds(lambda: resident.build(recipe)))
        # A copy moves the model twice, a build once per source and once for the result.
        moved = (sources + 1) / 2
        ideal, past = (before + copying()) / 2 * moved, copying.past() * moved
        shares.append((ideal / taken, ideal / max(taken - fixed, 1e-9), past / taken))
    whole, less, past = map(statistics.median, zip(*shares, strict=True))
    return whole, less, past


def builds(report: Report, folder: Path, compilers: Mapping[str, Compiler], dtype: str) -> None:
    """Every method with 2 and 3 sources, compiled and as it stands."""
    family, narrow = Family(folder / dtype, MEASURED, dtype), Family(folder / f"narrow {dtype}", NARROW, dtype)
    copying, which = Copying(family.bytes), DTYPES.index(dtype)
    for method, goals in GOALS.items():
        for count in (2,) if method == "slerp" else (2, 3):
            sources = count + (method not in ("linear", "slerp"))
            name = f"build {method} {dtype} {count} sources"
            if report.quick and (count == 3 or dtype == "bfloat16") and method not in ("linear", "ties"):
                report.skip(name, goals[which], "takes too long for a quick run")
                continue
            for mode, title in (("always", name), ("never", f"{name} without a compiler")):
                if mode == "never" and goals is not NEAR_COPY:
                    continue
                rounds = 5 if report.quick or mode == "never" else 9
                small = Resident(narrow.parents(), compiler=compilers[mode])
                fixed = fixed_cost(small, candidates(narrow, method, count), rounds)
                resident, found = (
                    Resident(family.parents(), compiler=compilers[mode]),
                    candidates(family, method, count),
                )
                cold = seconds(lambda r=resident, f=found: r.build(next(f)))
                resident.build(next(found))
                whole, less, past = fractions(resident, found, sources, copying, rounds, fixed)
                goal = goals[which] if mode == "always" else PLAIN_GOAL[which]
                report.claim(title, whole, "of copy", goal)
                report.claim(f"{title}, less the fixed cost", less, "of copy")
                report.claim(f"{title}, of a copy past the caches", past, "of copy")
                report.claim(f"{title}, cold first build", cold, "s", None, "lower")
                del resident, small
                gc.collect()
    report.note(
        f"copies beside the builds in {dtype} moved {copying.speeds(copying.taken)} (slowest and fastest tenth), past "
        f"the caches {copying.speeds(copying.taken_past)}, and every share of a copy is as much larger or smaller: "
        "read a row beside its neighbours"
    )


def overhead(report: Report, folder: Path, compilers: Mapping[str, Compiler]) -> None:
    """What a candidate costs besides arithmetic, and a candidate that changes one of four layer groups."""
    narrow = Family(folder / "narrow float32", NARROW, "float32")
    for method, goal in (
        ("linear", 20),
        ("slerp", 20),
        ("task_arithmetic", 20),
        ("dare_ties", 20),
        ("ties", 20),
        ("della", None),
    ):
        resident, found = Resident(narrow.parents(), compiler=compilers["always"]), candidates(narrow, method, 2)
        taken = fixed_cost(resident, found, 30, resolving=True)
        report.claim(f"fixed cost of a {method} candidate of 32 layers", 1000 * taken, "ms", goal, "lower")
    family = Family(folder / "float32", MEASURED, "float32")
    resident = Resident(family.parents(), compiler=compilers["always"])

    def grouped(number: int, changed: int | None = None) -> ResolvedRecipe:
        weights = [0.3 + 0.01 * number + (0.001 if group == changed else 0.0) for group in range(GROUPS)]
        return family.merge("task_arithmetic", 2, {"weight": {"a": {"groups": weights}, "b": 0.4}}, base=True)

    shares: dict[int, list[float]] = {group: [] for group in range(GROUPS)}
    for number in range(2 * GROUPS if report.quick else 6 * GROUPS):
        full, partly = grouped(number), grouped(number, number % GROUPS)
        whole = seconds(lambda recipe=full: resident.build(recipe))
        shares[number % GROUPS].append(whole / seconds(lambda recipe=partly: resident.build(recipe)))
    # The first of each group warms up. The embedding belongs to the first group, the head to the last.
    medians = [statistics.median(found[1:]) for found in shares.values()]
    for group, median in enumerate(medians, 1):
        report.claim(f"layer group {group} of the four changed, against a full build", median, "x", 3)


def exports(report: Report, folder: Path, _: Mapping[str, Compiler]) -> None:
    """2 GB to disk, against plain sequential writing, and the memory it takes."""
    family = Family(folder / "large", LARGE, "float32", names=("base", "a", "b"))
    parents = family.parents()
    recipe = family.merge("linear", 2, params("linear", 1, 2), base=False)
    ratios, peaks = [], []
    for _ in range(1 if report.quick else 2):
        before = seconds(lambda: write_plainly(folder / "plain", family.bytes))
        with watched() as peak:
            taken = seconds(
                lambda: export(recipe, parents, folder / "out", tokenizer_folder=family.folder / "a", max_memory=MEMORY)
            )
        shutil.rmtree(folder / "out")
        plain = (before + seconds(lambda: write_plainly(folder / "plain", family.bytes))) / 2
        ratios.append(plain / taken)
        peaks.append(peak[0])
    report.claim("export of 2 GB, against sequential writing", statistics.median(ratios), "x", 0.7)
    report.claim("memory of that export, of its budget", max(peaks) / MEMORY, "x", 1.0, "lower")


def write_plainly(path: Path, size: int) -> None:
    """Write so many bytes and wait until they are on the disk."""
    data = memoryview(os.urandom(1 << 22))
    with path.open("wb", buffering=0) as file:
        for _ in range(size // len(data)):
            file.write(data)
        os.fsync(file.fileno())
    path.unlink()


@contextmanager
def watched() -> Iterator[list[int]]:
    """The most memory of its own that this process takes meanwhile, over what it had; mapped files do not count."""
    gc.collect()
    # What was freed before goes back first, or it would be taken again without being seen.
    ctypes.CDLL(None).malloc_trim(0)
    begun, peak, stop = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], anonymous() - begun)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def anonymous() -> int:
    """Bytes of memory that no file stands behind."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's own memory: run the benchmark on Linux")


def on_gpu(report: Report, folder: Path, compilers: Mapping[str, Compiler]) -> None:
    """A model of 8 B weights, whose files are hollow: arithmetic takes as long over zeros."""
    name = "8 B shape in bfloat16 on a GPU"
    if not torch.cuda.is_available():
        report.skip(name, 0.7, "no GPU in this machine")
        return
    room, needed = torch.cuda.mem_get_info()[0], 6 * 17 * 2**30
    if room < needed:
        report.skip(name, 0.7, f"the GPU has {room >> 30} GiB free, and parents, result and a copy take {needed >> 30}")
        return
    family = Family(folder / "hollow", HUGE, "bfloat16", names=("base", "a", "b"), hollow=True)
    resident = Resident(family.parents("cuda"), compiler=compilers["always"])
    found, source = candidates(family, "linear", 2), torch.empty(family.bytes // 4, device="cuda")
    target = torch.empty_like(source)

    def synchronised(work: Callable[[], Any]) -> float:
        def done() -> None:
            work()
            torch.cuda.synchronize()

        return seconds(done)

    for _ in range(2):
        resident.build(next(found))
    shares = []
    for _ in range(10):
        recipe = next(found)
        copied = synchronised(lambda: target.copy_(source))
        shares.append(copied * 3 / 2 / synchronised(lambda recipe=recipe: resident.build(recipe)))
    report.claim(name, statistics.median(shares), "of copy", 0.7)


#: Each measures one thing in a folder, with kernels by whether they are compiled.
MEASURES: dict[str, Callable[[Report, Path, Mapping[str, Compiler]], None]] = {
    "overhead": overhead,
    "float32": partial(builds, dtype="float32"),
    "bfloat16": partial(builds, dtype="bfloat16"),
    "mergekit": against_mergekit,
    "export": exports,
    "gpu": on_gpu,
}


def apart(measure: Callable[[Report, Path, Mapping[str, Compiler]], None], report: Report) -> None:
    """Measure one part, in a folder of its own."""
    compilers = {mode: Compiler(mode) for mode in ("always", "never")}
    with tempfile.TemporaryDirectory(dir=Path.cwd() / "var" if (Path.cwd() / "var").is_dir() else None) as name:
        measure(report, Path(name), compilers)


PARTS = {part: partial(apart, measure) for part, measure in MEASURES.items()}

if __name__ == "__main__":
    raise SystemExit(measured("merging", __doc__, PARTS))
