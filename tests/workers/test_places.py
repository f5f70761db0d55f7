from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from core.errors import MissingCheckpointError, PathNotAllowedError
from core.settings import Settings
from workers.places import link_roots, model_folder, pinned


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "models" / "herd").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "models" / "out").symlink_to(tmp_path / "secret")
    return Settings(model_roots=(tmp_path / "models",), hub_allow=r"herd/[\w.-]+")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Every request that would reach the hub."""
    asked = []

    def download(repo, **options):
        asked.append((repo, options))
        return str(tmp_path / "0123abcd")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_local_model_lies_under_a_root(settings, tmp_path):
    assert model_folder("local:herd", settings) == (tmp_path / "models" / "herd").resolve()


@pytest.mark.parametrize("ref", ["local:../secret", "local:out", "local:/etc", "herd", "s3:herd/a", "hub:herd"])
def test_nothing_else_is_ever_opened(settings, hub, ref):
    with pytest.raises(PathNotAllowedError):
        model_folder(ref, settings)
    assert hub == []


def test_what_is_missing_is_named(settings):
    with pytest.raises(MissingCheckpointError, match="nobody"):
        model_folder("local:nobody", settings)


def test_a_hub_model_is_fetched_at_its_revision_without_pickles_or_code(settings, hub, tmp_path):
    assert model_folder("hub:herd/a@0123abcd", settings) == tmp_path / "0123abcd"
    ((repo, options),) = hub
    assert (repo, options["revision"]) == ("herd/a", "0123abcd")
    allowed = options["allow_patterns"]
    names = ("model.safetensors", "config.json", "model.safetensors.index.json", "tokenizer.model", "merges.txt")
    assert all(any(Path(name).match(pattern) for pattern in allowed) for name in names)
    for name in ("pytorch_model.bin", "model.pt", "modeling_herd.py", "weights.pkl", "model.gguf"):
        assert not any(Path(name).match(pattern) for pattern in allowed)


def test_a_hub_id_outside_the_allow_list_is_refused_unasked(settings, hub):
    with pytest.raises(PathNotAllowedError, match="HUARIZO_HUB_ALLOW"):
        model_folder("hub:flock/herd", settings)
    assert hub == []


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("not in the cache\nmore"), OSError(), OSError("no route")])
def test_a_hub_that_cannot_be_reached_is_a_missing_checkpoint(settings, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MissingCheckpointError, match="herd/a") as found:
        model_folder("hub:herd/a", settings)
    assert "\n" not in found.value.message


def test_an_id_the_hub_itself_refuses_is_a_missing_checkpoint(settings):
    with pytest.raises(MissingCheckpointError, match="a--b"):
        model_folder("hub:herd/a--b", settings)


def test_a_reference_is_pinned_to_the_commit_that_was_fetched():
    assert pinned("hub:herd/a", Path("/cache/snapshots/0123abcd")) == "hub:herd/a@0123abcd"
    assert pinned("hub:herd/a@main", Path("/cache/snapshots/0123abcd")) == "hub:herd/a@0123abcd"
    assert pinned("local:herd", Path("/models/herd")) == "local:herd"


def test_a_local_model_may_link_within_the_roots_only(settings, tmp_path):
    (tmp_path / "models" / "shared.json").write_text("{}")
    (tmp_path / "models" / "herd" / "tokenizer.json").symlink_to(tmp_path / "models" / "shared.json")
    assert model_folder("local:herd", settings) == (tmp_path / "models" / "herd").resolve()
    (tmp_path / "secret" / "key.json").write_text("{}")
    (tmp_path / "models" / "herd" / "config.json").symlink_to(tmp_path / "secret" / "key.json")
    with pytest.raises(PathNotAllowedError, match=r"'config\.json'"):
        model_folder("local:herd", settings)


def test_a_hub_snapshot_may_link_into_the_hubs_cache_only(settings, hub, tmp_path, monkeypatch):
    (tmp_path / "0123abcd").mkdir()
    (tmp_path / "0123abcd" / "config.json").symlink_to(tmp_path / "blobs" / "ab")
    with pytest.raises(PathNotAllowedError, match=r"'config\.json'"):
        model_folder("hub:herd/a", settings)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_folder("hub:herd/a", settings) == tmp_path / "0123abcd"
    # The cache may hold what its owner alone may read, so a local model reaches nothing there.
    (tmp_path / "models" / "herd" / "config.json").symlink_to(tmp_path / "blobs" / "ab")
    with pytest.raises(PathNotAllowedError):
        model_folder("local:herd", settings)
    assert link_roots(settings) == (tmp_path / "models", tmp_path)
