"""A file written from front to back, past the system's cache where the system allows that.

What goes through the cache is copied by the processor page by page, and throws out of memory what is read from there,
the parents above all.
"""

from __future__ import annotations

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

#: Bytes handed to the disk at once at most, and at least where memory is scarce; two such pieces are held.
PIECE, LEAST_PIECE = 1 << 22, 1 << 16
#: What disks want places, lengths and addresses to be multiples of.
SECTOR = 1 << 12
#: Bytes of a file in the cache from which on the disk is told to begin: left to itself the system waits for gigabytes.
BEHIND = 1 << 26
#: macOS has no call that leaves the times of a file alone.
_sync = getattr(os, "fdatasync", os.fsync)


class DirectFile:
    """A new file, its bytes handed to the disk in a thread of its own. Close it in the end.

    Args:
        path: where it is made; a file that is there is written over.
        size: how many bytes it will have.
        piece: how many of them are handed over at once; a multiple of `SECTOR`.

    Raises:
        OSError: it cannot be opened or written.
    """

    def __init__(self, path: Path, size: int, piece: int = PIECE) -> None:
        self._path, self._size = path, size
        held = max(SECTOR, min(piece, -(-size // SECTOR) * SECTOR))
        # Mappings begin where a page does.
        self._pieces = [mmap.mmap(-1, held) for _ in range(2)]
        self._place = self._filled = self._behind = 0
        self._sending: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._direct = hasattr(os, "O_DIRECT")
        try:
            self._file = self._open(os.O_CREAT | os.O_TRUNC)
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL:
                raise
            self._direct = False
            self._file = self._open(os.O_CREAT | os.O_TRUNC)

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes, which are free again when this returns; what the disk said of earlier ones is raised."""
        given, done = np.frombuffer(data, np.uint8), 0
        while done < given.size:
            into = np.frombuffer(self._pieces[0], np.uint8)
            count = min(given.size - done, into.size - self._filled)
            into[self._filled : self._filled + count] = given[done : done + count]
            done += count
            self._filled += count
            if self._filled == into.size:
                self._send(into.size)

    def close(self, *, complete: bool = True) -> None:
        """Wait until all of it is on the disk; or let go of what is not there yet, if it is not `complete`.

        A file that is said to be complete survives a power cut.
        """
        try:
            if complete:
                if self._filled:
                    count = -(-self._filled // SECTOR) * SECTOR if self._direct else self._filled
                    self._pieces[0][self._filled : count] = bytes(count - self._filled)
                    self._send(count)
                self._sent()
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
        finally:
            self._thread.shutdown()
            os.close(self._file)

    def _open(self, flags: int) -> int:
        return os.open(self._path, os.O_WRONLY | flags | (os.O_DIRECT if self._direct else 0), 0o666)

    def _send(self, count: int) -> None:
        """Hand the piece in hand over, once the one before has arrived."""
        self._sent()
        self._sending = self._thread.submit(self._put, self._pieces[0], count, self._place)
        self._place += count
        self._filled = 0
        self._pieces.reverse()

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.result()

    def _put(self, piece: mmap.mmap, count: int, place: int) -> None:
        done = 0
        with memoryview(piece) as whole:
            while done < count:
                try:
                    done += os.pwrite(self._file, whole[done:count], place + done)
                except OSError as error:
                    if not self._direct or error.errno != errno.EINVAL:
                        raise
                    self._through_the_cache()
        self._behind += count
        if not self._direct and self._behind >= BEHIND:
            self._behind = 0
            _sync(self._file)

    def _through_the_cache(self) -> None:
        """Some systems open a file for this and do not write it so."""
        self._direct = False
        opened = self._open(0)
        os.close(self._file)
        self._file = opened


def piece_within(limit: int) -> int:
    """How many bytes to hand over at once where two such pieces may take half of a limit."""
    return min(PIECE, max(LEAST_PIECE, limit // 4 // SECTOR * SECTOR))
