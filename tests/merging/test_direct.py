from __future__ import annotations

import errno
import os

import pytest

from merging import direct
from merging.direct import LEAST_PIECE, PIECE, SECTOR, DirectFile, piece_within

SIZES = [0, 1, SECTOR - 1, SECTOR, SECTOR + 1, 2 * SECTOR, 5 * SECTOR + 7]
real_open, real_pwrite = os.open, os.pwrite


def refusing_to_open(path, flags, *mode):
    if flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, "not here")
    return real_open(path, flags, *mode)


def write(path, data, cuts, piece=SECTOR):
    file = DirectFile(path, len(data), piece)
    for start, stop in zip((0, *cuts), (*cuts, len(data)), strict=True):
        file.write(memoryview(data)[start:stop])
    return file


@pytest.fixture(params=["direct", "refused at once", "refused later", "unknown"])
def system(request, monkeypatch):
    """Ways in which systems may treat the wish to write past their cache."""
    if request.param == "unknown":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    elif not hasattr(os, "O_DIRECT"):
        pytest.skip("this system has no such wish")
    elif request.param == "refused at once":
        monkeypatch.setattr(os, "open", refusing_to_open)
    elif request.param == "refused later":
        refused = []

        def pwrite(file, data, place):
            if not refused:
                refused.append(place)
                raise OSError(errno.EINVAL, "not so")
            return real_pwrite(file, data, place)

        monkeypatch.setattr(os, "pwrite", pwrite)
    return request.param


@pytest.mark.parametrize("size", SIZES)
def test_the_file_holds_what_was_written_however_it_was_cut(tmp_path, system, size):
    data = os.urandom(size)
    for number, cuts in enumerate([(), (size // 2,), (0, size // 3, size // 3, size)]):
        path = tmp_path / str(number)
        write(path, data, cuts).close()
        assert path.read_bytes() == data
        plain = tmp_path / "plain"
        plain.touch()
        assert path.stat().st_mode == plain.stat().st_mode


def test_what_was_there_is_written_over(tmp_path, system):
    path = tmp_path / "file"
    path.write_bytes(bytes(9 * SECTOR))
    write(path, b"short", ()).close()
    assert path.read_bytes() == b"short"


def test_what_is_handed_over_may_change_afterwards(tmp_path, system):
    data = bytearray(b"a" * 3 * SECTOR)
    file = DirectFile(tmp_path / "file", 2 * len(data), SECTOR)
    file.write(memoryview(data))
    data[:] = b"b" * len(data)
    file.write(memoryview(data))
    file.close()
    assert (tmp_path / "file").read_bytes() == b"a" * len(data) + b"b" * len(data)


def test_a_disk_that_takes_a_little_at_a_time_gets_all_of_it(tmp_path, monkeypatch):
    data = os.urandom(3 * SECTOR + 5)
    monkeypatch.setattr(os, "pwrite", lambda file, part, place: real_pwrite(file, part[:SECTOR], place))
    write(tmp_path / "file", data, (), 4 * SECTOR).close()
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_the_disk_refuses_is_raised_although_later_writes_succeed(tmp_path, monkeypatch, failing, number):
    calls = []

    def pwrite(file, data, place):
        calls.append(place)
        if len(calls) == failing:
            raise OSError(number, "the disk failed")
        return real_pwrite(file, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = bytes(3 * SECTOR)
    file = DirectFile(tmp_path / "file", len(data), SECTOR)

    def written():
        for start in range(0, len(data), SECTOR):
            file.write(memoryview(data)[start : start + SECTOR])
        file.close()

    with pytest.raises(OSError, match="the disk failed") as raised:
        written()
    assert raised.value.errno == number


def test_through_the_cache_the_disk_is_told_to_begin_and_what_it_says_is_raised(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.setattr(direct, "BEHIND", 2 * SECTOR)
    calls = []

    def sync(file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(direct, "_sync", sync)
    write(tmp_path / "file", bytes(3 * SECTOR), ()).close()
    assert len(calls) == 1
    file = write(tmp_path / "file", bytes(2 * SECTOR), ())
    with pytest.raises(OSError, match="the disk failed"):
        file.close()


def test_what_is_not_complete_is_let_go_of(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write(tmp_path / "file", bytes(SECTOR), ()).close(complete=False)
    assert not synced


def test_pieces_take_at_most_half_of_a_limit_unless_that_is_next_to_nothing():
    assert [piece_within(limit) for limit in (0, 1 << 18, (1 << 20) + 999, 1 << 30)] == [
        LEAST_PIECE,
        1 << 16,
        1 << 18,
        PIECE,
    ]
