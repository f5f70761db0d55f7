"""Several cores at once: Python threads that each run torch's operations on a single core.

For pieces that fit into a core's own cache this beats torch's own threads, which meet after every operation, and it
does not stall when another program takes one of the cores.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from operator import length_hint
from threading import Lock
from typing import Generic, TypeVar

import torch

#: glibc's names of what `mallopt` sets, and the values: bytes from which on a piece of memory is asked from the system
#: by itself (the largest value allowed), and bytes of freed memory from which on it is given back.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HELD_BYTES, PIECE_BYTES = 64 << 20, 32 << 20
#: Environment variables by which the same is set for a process as a whole.
ALLOCATOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(work: Callable[[Item], Result], items: Iterable[Item], lanes: int | None = None) -> list[Result]:
    """The results of every item, in no particular order. The work runs without gradients.

    Args:
        work: what to do with an item.
        items: all of them; each is asked for when it is wanted, by one thread at a time, while the others work.
        lanes: how many threads share them; as many as torch is set to by default.

    Raises:
        The first error of the work or of the items, once every thread has stopped.
    """
    _hold_freed_memory()
    lanes = lanes or torch.get_num_threads()
    # Where it is not known how many there are, there may be enough for all lanes.
    lanes, waiting = min(lanes, length_hint(items, lanes)), Waiting(items)
    if lanes <= 1:
        return _lane(work, waiting)
    with single_threaded():
        others = [_pool(lanes - 1).submit(_lane, work, waiting) for _ in range(lanes - 1)]
        try:
            found = _lane(work, waiting)
        finally:
            wait(others)
    for other in others:
        found += other.result()
    return found


class Waiting(Generic[Item]):
    """What is still to be done, for several threads."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items, self._lock = iter(items), Lock()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._lock:
                try:
                    item = next(self._items)
                except StopIteration:
                    return
            yield item

    def drop(self) -> None:
        """Leave nothing to anybody."""
        with self._lock:
            self._items = iter(())


@torch.no_grad()
def _lane(work: Callable[[Item], Result], waiting: Waiting[Item]) -> list[Result]:
    """Work on what is waiting until nothing is; an error leaves nothing to the others."""
    try:
        return [work(item) for item in waiting]
    except BaseException:
        waiting.drop()
        raise


@contextmanager
def single_threaded() -> Iterator[None]:
    """torch's operations stay on the calling thread's core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _hold_freed_memory() -> None:
    """What blocks free stays with the process for the blocks after them, where the C library is glibc.

    By itself it may give memory back to the system after every block and ask for it again; the system hands it over
    zeroed, page by page. Who has set the C library up by environment variables is left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not any(name in os.environ for name in ALLOCATOR):
        mallopt(M_MMAP_THRESHOLD, PIECE_BYTES)
        mallopt(M_TRIM_THRESHOLD, HELD_BYTES)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that live as long as the process; each is told once to use one core."""
    return ThreadPoolExecutor(threads, thread_name_prefix="lane", initializer=torch.set_num_threads, initargs=(1,))
