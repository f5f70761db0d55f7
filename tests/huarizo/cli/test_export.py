"""A downloaded checkpoint is the one the service vouches for, or it is not there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.errors import CheckpointError, ConflictError, HuarizoError, NotFoundError, TrialError
from huarizo.cli.export import download, find, inside
from huarizo.client import Client

FILES = {"config.json": b"{}", "model-00001-of-00002.safetensors": b"a" * 5000, "extra/card.md": b"# card"}


def artifact(files: dict[str, bytes] | None = None) -> dict[str, Any]:
    listed = [
        {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in (files or FILES).items()
    ]
    return {"id": "art_1", "trial_id": "trial_1", "files": listed, "weights_digest": "w"}


def service(files: dict[str, bytes], asked: list[str] | None = None) -> Client:
    def answer(request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix("/v1/artifacts/art_1/files/")
        (asked if asked is not None else []).append(name)
        return httpx.Response(200, content=files[name])

    return Client("http://service.test", transport=httpx.MockTransport(answer))


def test_every_file_arrives_and_nothing_else(tmp_path: Path) -> None:
    fractions: list[float] = []
    download(service(FILES), artifact(), tmp_path / "out", lambda _name, done: fractions.append(done))
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_file_with_other_bytes_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json.*sha256"):
        download(service({**FILES, "config.json": b"[]"}), artifact(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_bytes(FILES["config.json"])
    asked: list[str] = []
    download(service(FILES, asked), artifact(), out)
    assert asked == ["model-00001-of-00002.safetensors", "extra/card.md"]


def test_a_different_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    asked: list[str] = []
    with pytest.raises(ConflictError, match=r"config\.json"):
        download(service(FILES, asked), artifact(), tmp_path)
    assert asked == []
    assert (tmp_path / "config.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="stay in its folder"):
        inside(tmp_path, name)


def routes(table: dict[str, Callable[[], httpx.Response]]) -> Client:
    def answer(request: httpx.Request) -> httpx.Response:
        return table[f"{request.method} {request.url.path}"]()

    return Client("http://service.test", transport=httpx.MockTransport(answer))


def exporting(*states: dict[str, Any]) -> tuple[Client, list[str]]:
    """A service whose export step goes through `states`; and what it was asked for."""
    asked: list[str] = []
    ahead = list(states)

    def said(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        match asked[-1]:
            case "GET /v1/trials/trial_1":
                return httpx.Response(200, json={"artifacts": [] if ahead else ["artifact_1"]})
            case "POST /v1/trials/trial_1:export":
                return httpx.Response(202, json={"id": "step_1", "state": "queued"})
            case "GET /v1/steps/step_1":
                return httpx.Response(200, json={"id": "step_1", "failure": None, **ahead.pop(0)})
        return httpx.Response(200, json=artifact())

    return Client("http://service.test", transport=httpx.MockTransport(said)), asked


def test_a_trial_without_a_checkpoint_is_exported_first_and_one_with_is_not() -> None:
    client, asked = exporting({"state": "queued"}, {"state": "running"}, {"state": "done"})
    assert find(client, "trial_1", poll_seconds=0.0)["id"] == "art_1"
    assert asked.count("POST /v1/trials/trial_1:export") == 1
    assert find(client, "trial_1", poll_seconds=0.0)["id"] == "art_1"
    assert asked.count("POST /v1/trials/trial_1:export") == 1


def test_an_export_that_fails_is_told_with_its_failure() -> None:
    failure = {"code": "trial_failed", "message": "exported weights must be the scored ones"}
    client, _ = exporting({"state": "running"}, {"state": "failed", "failure": failure})
    with pytest.raises(TrialError, match="scored ones"):
        find(client, "trial_1", poll_seconds=0.0)
    client, _ = exporting({"state": "cancelled"})
    with pytest.raises(HuarizoError, match="cancelled"):
        find(client, "trial_1", poll_seconds=0.0)


def test_a_job_stands_for_its_newest_checkpoint_and_one_without_any_says_so() -> None:
    kept = ["art_0", "art_1"]
    client = routes(
        {
            "GET /v1/jobs/job_1": lambda: httpx.Response(200, json={"state": "succeeded", "artifacts": kept}),
            "GET /v1/artifacts/art_1": lambda: httpx.Response(200, json=artifact()),
        }
    )
    assert find(client, "job_1")["id"] == "art_1"
    kept.clear()
    with pytest.raises(NotFoundError, match="huarizo trials"):
        find(client, "job_1")
