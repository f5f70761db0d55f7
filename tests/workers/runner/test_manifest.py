import hashlib
import json

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
