"""Writing shards in a thread of its own, while the next tensor is computed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from core.model import TensorInfo
from merging.direct import LEAST_PIECE, piece_within
from merging.shards import ExportedFile, ShardWriter, shard_names


class ShardStream:
    """Takes the bytes of every tensor in order and writes them to their shards. Use it as a context manager.

    Leaving the block waits for the last byte and raises what stopped the writing; after an exception in the block
    nothing more is written.

    Args:
        folder: where the shards go.
        shards: their tensors, in order.
        waiting_bytes: how much may wait to be written, the tensor in hand included; a larger tensor is written
            before `put` returns.

    Raises:
        OSError: a shard cannot be written.
    """

    def __init__(self, folder: Path, shards: Sequence[Sequence[TensorInfo]], waiting_bytes: int) -> None:
        self._folder, self._shards = folder, shards
        # The pieces on their way to the disk wait too, but for the least they can be.
        self._piece = piece_within(waiting_bytes)
        self._limit = waiting_bytes - 2 * (self._piece - LEAST_PIECE)
        self._changed = threading.Condition()
        self._queue: deque[memoryview] = deque()
        self._waiting = 0
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="shard-writer", daemon=True)
        #: What has been written; complete once the block is left.
        self.files: list[ExportedFile] = []
        #: The sha256 of every tensor, in order; complete once the block is left.
        self.digests: list[str] = []

    def put(self, data: memoryview) -> None:
        """Hand over the next tensor; waits until there is room for it. Do not change the bytes afterwards."""
        with self._changed:
            self._wait(lambda: not self._waiting or self._waiting + data.nbytes <= self._limit)
            self._queue.append(data)
            self._waiting += data.nbytes
            self._changed.notify_all()
            self._wait(lambda: self._waiting <= self._limit)

    def __enter__(self) -> ShardStream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = self._stopped or error is not None
            self._changed.notify_all()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _wait(self, ready: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._error is not None or ready())
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            for name, shard in zip(shard_names(len(self._shards)), self._shards, strict=True):
                with ShardWriter(self._folder / name, shard, self._piece) as writer:
                    for _ in shard:
                        self._write_next(writer)
                self.files.append(writer.written)
                self.digests += writer.digests
        except BaseException as error:  # whatever it is, the thread that computes has to hear of it
            with self._changed:
                self._error = error
                self._queue.clear()
                self._changed.notify_all()

    def _write_next(self, writer: ShardWriter) -> None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._stopped)
            if self._stopped:
                raise InterruptedError("the export was stopped: nothing more is written")
            data = self._queue.popleft()
        writer.write(data)
        with self._changed:
            self._waiting -= data.nbytes
            self._changed.notify_all()
