import importlib.metadata
import platform
import subprocess

import pytest
import torch

from workers import provenance


@pytest.fixture(autouse=True)
def _forget():
    yield
    provenance.versions.cache_clear()
    provenance.git_commit.cache_clear()


def test_versions_are_those_installed(monkeypatch):
    provenance.versions.cache_clear()
    monkeypatch.setattr(provenance, "LIBRARIES", ("torch", "optuna", "no-such-library"))
    assert provenance.versions() == {
        "torch": importlib.metadata.version("torch"),
        "optuna": importlib.metadata.version("optuna"),
        "no-such-library": "not installed",
    }


def test_the_commit_is_gits_own():
    provenance.git_commit.cache_clear()
    told = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    assert provenance.git_commit() == (told.stdout.strip() or None)


def test_outside_a_checkout_and_without_git_there_is_no_commit(monkeypatch, tmp_path):
    provenance.git_commit.cache_clear()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "workers" / "provenance.py"))
    assert provenance.git_commit() is None
    provenance.git_commit.cache_clear()
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_commit() is None


def test_a_result_says_where_it_was_made():
    made = provenance.provenance(torch.device("cpu"))
    assert set(made["versions"]) == set(provenance.LIBRARIES)
    assert made["device"] == f"cpu ({platform.machine()})"
    assert made["python"] == platform.python_version()
