"""How much memory there is, and telling a lack of it apart from every other failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.errors import OutOfMemoryError


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
    """What is free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
