import hashlib
import json
import os

import pytest

from workers.runner import manifest
from workers.runner.manifest import MANIFEST, sha256_of, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.bin").write_bytes(b"weights" * 1000)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "inner" / "c.json").write_text("{}")
    return tmp_path


def test_every_file_is_listed_with_its_size_and_hash(folder):
    found = write_manifest(folder, {"format": 1, "job": "j"})
    assert json.loads((folder / MANIFEST).read_text()) == found
    assert (found["format"], found["job"]) == (1, "j")
    assert [file["path"] for file in found["files"]] == ["a.txt", "b.bin", "inner/c.json"]
    for file in found["files"]:
        data = (folder / file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_what_was_hashed_before_is_not_read_again(folder, monkeypatch):
    plain, read = write_manifest(folder, {}), []

    def hashed(path):
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(manifest, "sha256_of", hashed)
    known = {file["path"]: file["sha256"] for file in plain["files"] if file["path"] != "a.txt"}
    assert write_manifest(folder, {}, known) == plain
    assert read == ["a.txt"]


def test_the_manifest_its_folder_and_what_nobody_synced_are_on_the_disk(folder, monkeypatch):
    synced, real = [], os.fsync

    def record(handle):
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", record)
    write_manifest(folder, {}, {"b.bin": "0" * 64})
    paths = [folder / "a.txt", folder / "inner" / "c.json", folder / MANIFEST, folder]
    assert synced == [path.stat().st_ino for path in paths]


def test_a_manifest_written_again_replaces_the_former_and_does_not_list_itself(folder):
    first = write_manifest(folder, {})
    assert write_manifest(folder, {}) == first
    (folder / "d").write_text("more")
    assert len(write_manifest(folder, {})["files"]) == 4


def test_a_folder_has_its_manifest_whole_or_not_at_all(folder, monkeypatch):
    def fail(_path):
        raise OSError("the disk is gone")

    monkeypatch.setattr(manifest, "sha256_of", fail)
    with pytest.raises(OSError, match="gone"):
        write_manifest(folder, {})
    assert not (folder / MANIFEST).exists()


def test_a_hash_is_the_files(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256_of(tmp_path / "empty") == hashlib.sha256(b"").hexdigest()
