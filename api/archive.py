"""An artifact as one uncompressed tar, written to the wire as it is read from disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from api.files import KeptFile

_BLOCK, _PIECE = tarfile.BLOCKSIZE, 1 << 20


def tar_length(folder: str, files: Sequence[KeptFile]) -> int:
    """Bytes that `stream_tar` gives, so that a client can show progress and notice a cut."""
    moment = datetime.fromtimestamp(0, UTC)
    headers = sum(len(_header(f"{folder}/{file.name}", file.bytes, moment)) for file in files)
    return headers + sum(_padded(file.bytes) for file in files) + 2 * _BLOCK


def stream_tar(folder: str, files: Sequence[KeptFile], moment: datetime) -> Iterator[bytes]:
    """The archive in pieces; equal artifacts give equal bytes.

    Args:
        folder: the folder the files unpack into.
        files: in the order they are written.
        moment: the modification time every file gets.

    Raises:
        OSError: a file became shorter or unreadable meanwhile; the answer breaks off.
    """
    for file in files:
        yield _header(f"{folder}/{file.name}", file.bytes, moment)
        yield from _content(file)
        yield bytes(_padded(file.bytes) - file.bytes)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int, moment: datetime) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, int(moment.timestamp())
    # GNU's format has no limit of 8 GiB for one file, and gives long names blocks of their own.
    return info.tobuf(tarfile.GNU_FORMAT)


def _content(file: KeptFile) -> Iterator[bytes]:
    left = file.bytes
    with file.path.open("rb") as stream:
        while left:
            piece = stream.read(min(_PIECE, left))
            if not piece:
                raise OSError(f"{file.name!r} became shorter while it was sent")
            left -= len(piece)
            yield piece


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
