"""Memory for tensors: how much there is, in what order they lie in it, and when it is lacking."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch

from core.errors import OutOfMemoryError

#: Bytes that tensors must be a multiple of to lie one after another, so that all of them are aligned.
ALIGNED = 64
#: Bytes of a large page, on most machines.
LARGE_PAGE = 1 << 21


@contextmanager
def fits(what: str, device: torch.device) -> Iterator[None]:
    """Turn a failed allocation inside the block into a typed failure.

    Raises:
        OutOfMemoryError: the device has no room for `what`.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise OutOfMemoryError(
            f"{what} must fit on {device}, but it does not ({error}): free memory there, take fewer layers or a "
            "narrower dtype"
        ) from error


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is a failed allocation (on the CPU torch raises a plain RuntimeError)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_bytes(device: torch.device) -> int:
    """What is free on the device now; on the CPU with what the system would give up for it, cached files above all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def in_rows(sizes: Sequence[tuple[Sequence[int], torch.dtype]], device: torch.device) -> list[torch.Tensor]:
    """Uninitialised tensors of these shapes and dtypes; those of one size lie one after another, in order."""
    groups: dict[tuple[int, torch.dtype], list[int]] = defaultdict(list)
    for place, (shape, dtype) in enumerate(sizes):
        groups[torch.Size(shape).numel(), dtype].append(place)
    made: dict[int, torch.Tensor] = {}
    for (elements, dtype), places in groups.items():
        if elements * dtype.itemsize % ALIGNED:
            rows = [torch.empty(elements, dtype=dtype, device=device) for _ in places]
        else:
            table = torch.empty(len(places), elements, dtype=dtype, device=device)
            if device.type == "cpu":
                _on_large_pages(table)
            rows = list(table.unbind())
        made.update((place, row.view(sizes[place][0])) for place, row in zip(places, rows, strict=True))
    return [made[place] for place in range(len(sizes))]


def _on_large_pages(table: torch.Tensor) -> None:
    """Ask the system for large pages under a tensor that nobody has written to yet, where it knows any.

    They are found faster, and the first touch of each clears two megabytes instead of four kilobytes.
    """
    start, end = table.data_ptr(), table.data_ptr() + table.nbytes
    start, end = -(-start // LARGE_PAGE) * LARGE_PAGE, end // LARGE_PAGE * LARGE_PAGE
    if sys.platform == "linux" and end > start:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_HUGEPAGE)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts names with the numbers in them by value, so that layer 10 follows layer 9."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))
