import errno
import os

import pytest

from core.durable import sync_file, sync_folder


@pytest.fixture
def synced(monkeypatch):
    """The inodes that were put on the disk, in order."""
    seen, real = [], os.fsync

    def record(handle):
        seen.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", record)
    return seen


def test_a_file_and_its_folder_are_put_on_the_disk_and_keep_their_bytes(tmp_path, synced):
    (tmp_path / "file").write_bytes(b"bytes")
    sync_file(tmp_path / "file")
    sync_folder(tmp_path)
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]
    assert (tmp_path / "file").read_bytes() == b"bytes"


def test_a_folder_is_skipped_where_the_system_does_not_allow_it(tmp_path, monkeypatch):
    def unable(_handle):
        raise OSError(errno.EINVAL, "no folder can be synced here")

    def closed(*_):
        raise PermissionError(errno.EACCES, "a folder cannot be opened here")

    monkeypatch.setattr(os, "fsync", unable)
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "open", closed)
    sync_folder(tmp_path)


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    def broken(_handle):
        raise OSError(errno.EIO, "the disk")

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "fsync", broken)
    for call, path in ((sync_file, tmp_path / "file"), (sync_folder, tmp_path)):
        with pytest.raises(OSError, match="the disk"):
            call(path)
