"""A real `huarizo up` with a search that trains its own generator, from the post to the artifact, its runner killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from huarizo.client import ApiProblem, Client
from tests.torture.test_killing import Service, service, until

__all__ = ["service"]

pytestmark = pytest.mark.torture

OWN = {
    "family": "generation",
    "generator": {
        "train_after": 3,
        "top": 3,
        "training": {"chunk": 32, "width": 64, "blocks": 2, "autoencoder_steps": 1500, "denoiser_steps": 2500},
    },
    "around": "best",
    "base": "base",
    "arms": ["diffusion", "matched-noise"],
}
JOB: dict[str, Any] = {
    "models": [{"name": name, "ref": f"local:nursery/{name}"} for name in ("base", "arc")],
    "space": {"families": [OWN, {"family": "merge", "methods": ["linear", "slerp"]}]},
    "objective": {"tasks": [{"task": "nursery_arc", "metric": "acc_norm"}]},
    "confirmation": {"also": [{"task": "nursery_winogrande"}]},
    "budget": {"trials": 12},
    "strategy": {"name": "sobol"},
    "refine": {"enabled": False},
    "export": {"when": "never"},
    "seed": 3,
}


def test_a_search_trains_its_own_generator_though_its_runner_is_killed_and_leaves_an_artifact(
    service: Service, tmp_path: Path
) -> None:
    client = service.up()
    posted = client.submit(JOB)["id"]

    def told() -> dict[str, Any]:
        found: dict[str, Any] = client.job(posted)["generator"]
        return found

    until(lambda: told()["training"]["done"] >= 1000, "the training is under way")
    assert told()["state"] == "training"
    service.kill("workers.runner")
    until(lambda: client.job(posted)["state"] in ("succeeded", "failed"), "the search has ended")
    job = client.job(posted)
    assert job["state"] == "succeeded", job["failure"]
    assert told()["state"] == "ready", told()
    # It went on from its state: nobody trained from the first step again.
    steps = [event["payload"]["done"] for event in events(client, posted) if event["kind"] == "training"]
    assert steps.count(min(steps)) == 1
    assert max(steps) == 4000
    samples = [trial for trial in client.trials(posted) if trial["family"] == "generation"]
    assert samples
    assert any(trial["macro"] is not None for trial in samples)
    assert job["verdict"]["chance"]["candidates"] == 12
    assert [task["task"] for task in job["verdict"]["also"]["tasks"]] == ["nursery_winogrande"]
    _the_artifact_is_kept_refused_elsewhere_and_deleted(client, told(), tmp_path / "kept")


def _the_artifact_is_kept_refused_elsewhere_and_deleted(client: Client, told: dict[str, Any], folder: Path) -> None:
    artifact = client.artifact(told["artifact"])
    assert artifact["kind"] == "generator"
    assert artifact["weights_digest"] == told["training"]["generator"]
    # A model that it has never seen is inspected first, and refused then.
    named = {"family": "generation", "generator": artifact["id"]}
    models = [{"name": "wino", "ref": "local:nursery/wino"}]
    other = client.submit(JOB | {"space": {"families": [named]}, "models": models})["id"]
    until(lambda: client.job(other)["state"] == "failed", "the foreign base is refused")
    assert client.job(other)["failure"]["code"] == "generator_misfit"
    with pytest.raises(ApiProblem) as refused:
        client.submit(JOB | {"space": {"families": [named]}, "models": models})
    assert refused.value.code == "generator_misfit"
    folder.mkdir()
    for file in artifact["files"]:
        assert client.download(artifact["id"], file["path"], folder / "file") == file["sha256"]
    client.delete_artifact(artifact["id"])
    with pytest.raises(ApiProblem):
        client.artifact(artifact["id"])


def events(client: Client, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        more = client.events(job_id, after=found[-1]["id"] if found else 0)
        if not more:
            return found
        found += more
