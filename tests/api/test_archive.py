from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.archive import stream_tar, tar_length
from api.files import KeptFile

MOMENT = datetime(2026, 11, 20, tzinfo=UTC)


def kept(folder: Path, name: str, data: bytes) -> KeptFile:
    path = folder / str(abs(hash(name)))
    path.write_bytes(data)
    return KeptFile(name, path, len(data), "")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 3_000_000])
def test_any_size_is_padded_to_blocks_and_read_back(tmp_path: Path, size):
    file = kept(tmp_path, "weights", b"x" * size)
    data = b"".join(stream_tar("a", [file], MOMENT))
    assert len(data) == tar_length("a", [file]) == 512 + -(-size // 512) * 512 + 1024
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mtime, member.mode) == ("a/weights", int(MOMENT.timestamp()), 0o644)
        assert archive.extractfile(member).read() == b"x" * size


def test_a_long_name_has_its_place_in_the_length(tmp_path: Path):
    file = kept(tmp_path, "deep/" * 40 + "file", b"abc")
    data = b"".join(stream_tar("a", [file], MOMENT))
    assert len(data) == tar_length("a", [file])
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        assert archive.getnames() == [f"a/{file.name}"]


def test_a_file_of_more_than_eight_gibibytes_fits_the_header():
    from api.archive import _header

    header = _header("a/huge", 9 * 2**30, MOMENT)
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 9 * 2**30


def test_a_file_that_shrinks_while_it_is_sent_breaks_the_answer_off(tmp_path: Path):
    file = kept(tmp_path, "weights", b"x" * 1000)
    file.path.write_bytes(b"x")
    with pytest.raises(OSError, match="shorter"):
        b"".join(stream_tar("a", [file], MOMENT))
