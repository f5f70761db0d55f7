"""What the builds of a measurement are, how their seconds are taken, and the copies that they are held against."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.merging_parents import Family
from core.recipe.resolved import ResolvedRecipe
from merging.lanes import spread

#: Seconds until torch's threads stop looking for more work.
SETTLED = 0.01


def params(method: str, number: int, count: int) -> dict[str, Any]:
    """Values of candidate `number`, all unlike those of any other."""
    weight = 0.3 + 0.013 * number
    if method == "slerp":
        return {"t": weight}
    found: dict[str, Any] = {"weight": {name: weight + 0.1 * k for k, name in enumerate("abc"[:count])}}
    if method not in ("linear", "task_arithmetic"):
        found["density"] = {name: 0.4 + 0.011 * number + 0.05 * k for k, name in enumerate("abc"[:count])}
    return found


def candidates(family: Family, method: str, count: int) -> Iterator[ResolvedRecipe]:
    """Candidates of one method, without end."""
    number = 0
    while True:
        yield family.merge(method, count, params(method, number, count), base=method not in ("linear", "slerp"))
        number += 1


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def settled(measure: Callable[[], float]) -> float:
    """What is measured once the threads of what ran before, in whatever process, have gone to sleep.

    Those of torch's own operations keep a core busy for a few milliseconds after each.
    """
    time.sleep(SETTLED)
    return measure()


class Copying:
    """A plain copy of as many bytes as a model has: torch's, and past the caches as builds are written.

    The second is the C library's, which goes past the caches from some megabytes on; every core copies its share.
    """

    def __init__(self, size: int) -> None:
        self.source = torch.ones(size // 4)
        self.target = torch.empty_like(self.source)
        self.taken: list[float] = []
        self.taken_past: list[float] = []

    def __call__(self) -> float:
        """Seconds of torch's copy."""
        self.taken.append(settled(lambda: seconds(lambda: self.target.copy_(self.source))))
        return self.taken[-1]

    def past(self) -> float:
        """Seconds of the copy past the caches."""
        lanes = torch.get_num_threads()
        share = self.source.nbytes // lanes

        def part(lane: int) -> None:
            ctypes.memmove(self.target.data_ptr() + lane * share, self.source.data_ptr() + lane * share, share)

        self.taken_past.append(settled(lambda: seconds(lambda: spread(part, range(lanes), lanes))))
        return self.taken_past[-1]

    def speeds(self, taken: Sequence[float]) -> str:
        """GB/s read and written, of the slowest and the fastest tenth of some copies."""
        ordered = sorted(taken)
        tenth = len(ordered) // 10
        moved = 2 * self.source.nbytes / 1e9
        return f"{moved / ordered[-1 - tenth]:.0f} to {moved / ordered[tenth]:.0f} GB/s"
