"""Several cores at once: Python threads that each run torch's operations on a single core.

For pieces that fit into a core's own cache this beats torch's own threads, which meet after every operation, and it
does not stall when another program takes one of the cores.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from operator import length_hint
from queue import SimpleQueue
from threading import Lock, Thread, local
from typing import Any, Generic, TypeVar

import torch

#: glibc's names of what `mallopt` sets, and the values: bytes from which on a piece of memory is asked from the system
#: by itself (the largest value allowed), and bytes of freed memory from which on it is given back.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HELD_BYTES, PIECE_BYTES = 64 << 20, 32 << 20
#: Environment variables by which the same is set for a process as a whole.
ALLOCATOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

Item = TypeVar("Item")
Result = TypeVar("Result")
#: The last job of each thread, and how many threads torch had, until all of it is over.
_mine = local()


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
    _finish_last()
    threads = torch.get_num_threads()
    lanes = lanes or threads
    # Where it is not known how many there are, there may be enough for all lanes.
    others = min(lanes, length_hint(items, lanes)) - 1
    job = Job(work, items)
    if others <= 0:
        job.lane()
        return job.results()
    _mine.last = job, threads
    try:
        torch.set_num_threads(1)
        for _ in range(others):
            _inbox(others).put(job)
        job.lane()
    finally:
        _finish_last()
    return job.results()


class Job(Generic[Item, Result]):
    """Work that several threads share.

    The thread that has made it may be interrupted wherever it stands, so nothing that another waits for is left to it:
    it holds locks of C alone, which no interrupt leaves behind, and the others count for themselves who is at work.

    Args:
        work: what to do with an item.
        items: all of them.
    """

    def __init__(self, work: Callable[[Item], Result], items: Iterable[Item]) -> None:
        self._work, self._items, self._next = work, iter(items), Lock()
        self._found: list[list[Result]] = []
        self._errors: list[BaseException] = []
        self._busy, self._closed, self._counting = 0, False, Lock()
        self._done: SimpleQueue[None] = SimpleQueue()

    def help(self) -> None:
        """Take part as one of the others, unless it is closed already."""
        with self._counting:
            if self._closed:
                return
            self._busy += 1
        try:
            self.lane()
        except BaseException as error:
            self._errors.append(error)
        finally:
            with self._counting:
                self._busy -= 1
            self._done.put(None)

    @torch.no_grad()
    def lane(self) -> None:
        """Work on what is left until nothing is; an error leaves nothing to the others."""
        try:
            self._found.append([self._work(item) for item in self._left()])
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """Let nobody begin any more, and wait for those who have."""
        with self._counting:
            self._closed = True
        self._drop()
        # Whoever is counted has yet to tell that it is done.
        while self._busy:
            self._done.get()

    def results(self) -> list[Result]:
        """All of them.

        Raises:
            The first error of the others.
        """
        if self._errors:
            raise self._errors[0]
        return [result for found in self._found for result in found]

    def _left(self) -> Iterator[Item]:
        while True:
            with self._next:
                try:
                    item = next(self._items)
                except StopIteration:
                    return
            yield item

    def _drop(self) -> None:
        with self._next:
            self._items = iter(())


def _finish_last() -> None:
    """This thread's last job is closed, and torch has its threads again.

    Done anew before the next one, for an interrupt may have come in the middle of it.
    """
    last: tuple[Job[Any, Any], int] | None = getattr(_mine, "last", None)
    if last is not None:
        job, threads = last
        job.close()
        torch.set_num_threads(threads)
        _mine.last = None


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
def _inbox(threads: int) -> SimpleQueue[Job[Any, Any]]:
    """Where so many threads, which live as long as the process, get their jobs; each uses one core.

    Not an executor's: those hold locks of their own while they are given work, and an interrupt there stops everybody.
    """
    inbox: SimpleQueue[Job[Any, Any]] = SimpleQueue()

    def serve() -> None:
        torch.set_num_threads(1)
        while True:
            inbox.get().help()

    for number in range(threads):
        Thread(target=serve, name=f"lane {number}", daemon=True).start()
    return inbox
