"""Jobs that train a generator, and the generators they leave behind, over HTTP."""

from __future__ import annotations

import json

import httpx
import pytest

from core.records import ArtifactRecord, Device, StepKind
from core.states import JobState
from store import artifacts, events, generators, jobs, steps
from store.session import Database
from tests.api import seeds

DIGEST = seeds.digest("a generator")


@pytest.fixture
def parents(database: Database) -> None:
    with database.transaction() as s:
        for name in seeds.PARENTS:
            seeds.ready_model(s, name)


def body(**changes):
    return {"kind": "generator", "models": [{"name": "base", "ref": "base"}], **changes}


@pytest.fixture
def generator(database: Database, folders, parents) -> ArtifactRecord:
    """A generator that was trained on the base, as far as the API looks at one."""
    folder = folders["artifacts"] / "generator_1"
    folder.mkdir(parents=True)
    text = json.dumps({"lineage": [seeds.digest("base")], "tensors": [{"name": "model.norm.weight"}]})
    (folder / "config.json").write_text(text)
    files = [{"path": "config.json", "bytes": len(text), "sha256": "0" * 64}]
    with database.transaction() as s:
        return artifacts.create(
            s,
            job_id=None,
            trial_id=None,
            kind=generators.KIND,
            path="generator_1",
            files=files,
            bytes=len(text),
            weights_digest=DIGEST,
        )


def sampling(generator: str, **family):
    wanted = {"family": "generation", "generator": generator, "base": "base", **family}
    return seeds.body(space={"families": [wanted]})


def test_a_training_is_accepted_and_tells_how_far_it_is(client: httpx.Client, database: Database, parents):
    answer = client.post("/v1/jobs", json=body(training={"autoencoder_steps": 40, "denoiser_steps": 60}))
    assert answer.status_code == 202 and answer.json()["kind"] == "generator"
    address, job_id = answer.headers["location"], answer.json()["id"]
    assert client.get(address).json()["training"]["done"] == 0
    with database.transaction() as s:
        jobs.move(s, job_id, JobState.PREPARING)
        jobs.move(s, job_id, JobState.RUNNING)
        # A training that was interrupted tells step 40 twice.
        for done, loss in ((20, 0.5), (40, 0.4), (40, 0.3), (60, 1.2)):
            events.append(s, job_id, generators.PROGRESS, {"done": done, "of": 100, "loss": loss, "seconds": 1.0})
    detail = client.get(address).json()
    assert detail["training"]["losses"] == [[20, 0.5], [40, 0.3], [60, 1.2]]
    assert (detail["training"]["loss"], detail["training"]["steps"]) == (1.2, 100)
    assert detail["progress"]["budget"] == [{"limit": "training_steps", "used": 60.0, "allowed": 100.0, "share": 0.6}]
    assert detail["request"]["preset"] == "default"
    page = client.get(f"/jobs/{job_id}", headers={"accept": "text/html"})
    assert page.status_code == 200 and "60" in page.text and "<svg" in page.text and "1.2" in page.text
    assert client.get("/", headers={"accept": "text/html"}).status_code == 200
    assert client.get(f"/fragments/jobs/{job_id}").status_code == 200


def test_a_finished_training_shows_its_generator_and_metrics(client: httpx.Client, database: Database, parents):
    job_id = client.post("/v1/jobs", json=body()).json()["id"]
    with database.transaction() as s:
        jobs.move(s, job_id, JobState.PREPARING)
        jobs.move(s, job_id, JobState.RUNNING)
        step = steps.add(s, StepKind.TRAIN_GENERATOR, Device.CPU, job_id=job_id)
        held = steps.claim(s, owner="w", devices=(Device.CPU,), kinds=(StepKind.TRAIN_GENERATOR,), lease_seconds=60)
        assert held.id == step.id
        result = {"digest": DIGEST, "metrics": {"values_rel_l2": 0.0125}, "seconds": 3.5}
        steps.finish(s, held.id, held.fence, result)
    told = client.get(f"/v1/jobs/{job_id}").json()["training"]
    assert (told["generator"], told["metrics"], told["seconds"]) == (DIGEST, {"values_rel_l2": 0.0125}, 3.5)
    page = client.get(f"/jobs/{job_id}", headers={"accept": "text/html"}).text
    assert "0.0125" in page and DIGEST in page


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"preset": "defualt"}, "invalid_input", "body"),
        ({"training": {"chunk": 1}}, "invalid_input", "body"),
        ({"training": {"selectors": ["block:99"]}}, "bad_selector", "selectors"),
        ({"models": []}, "invalid_input", "models"),
        ({"elite": {"job": "job_0"}}, "invalid_input", "elite.job"),
        ({"models": [{"name": "base", "ref": "bass"}]}, "unknown_model", "models.base"),
        ({"kind": "genrator"}, "invalid_input", "body"),
    ],
)
def test_what_is_wrong_with_a_training_is_said_at_once(client: httpx.Client, parents, changes, code, where):
    answer = client.post("/v1/jobs", json=body(**changes))
    assert (answer.status_code, answer.json()["code"], answer.json()["where"]) == (422, code, where)
    assert client.get("/v1/jobs").json()["items"] == []


def test_what_only_a_search_has_is_refused_of_a_training(client: httpx.Client, parents):
    job_id = client.post("/v1/jobs", json=body()).json()["id"]
    answer = client.post(f"/v1/jobs/{job_id}:extend", json={"budget": {"trials": 5}})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert client.get(f"/v1/jobs/{job_id}/report").status_code == 409
    assert client.post(f"/v1/jobs/{job_id}:explain").status_code == 409


def test_a_training_is_cloned_with_other_settings(client: httpx.Client, parents):
    job_id = client.post("/v1/jobs", json=body()).json()["id"]
    clone = client.post(f"/v1/jobs/{job_id}:clone", json={"changes": {"training": {"seed": 5}}})
    assert clone.status_code == 202
    assert client.get(f"/v1/jobs/{clone.json()['id']}").json()["request"]["training"] == {"seed": 5}


@pytest.mark.parametrize("named", ["id", "weights_digest"])
def test_a_search_names_its_generator_by_id_or_digest_and_keeps_the_digest(client: httpx.Client, generator, named):
    answer = client.post("/v1/jobs", json=sampling(getattr(generator, named)))
    assert answer.status_code == 202, answer.text
    found = client.get(answer.headers["location"]).json()
    assert found["request"]["space"]["families"][0]["generator"] == DIGEST


def test_a_generator_that_is_none_or_of_another_base_is_refused(client: httpx.Client, generator):
    unknown = client.post("/v1/jobs", json=sampling("gen_1"))
    assert (unknown.status_code, unknown.json()["code"]) == (422, "missing_generator")
    foreign = client.post("/v1/jobs", json=sampling(generator.id, base="maths"))
    assert (foreign.status_code, foreign.json()["code"]) == (422, "generator_misfit")


def test_a_generator_goes_with_its_files_but_not_while_a_job_samples_from_it(client, generator, folders):
    address = f"/v1/artifacts/{generator.id}"
    assert client.get(address).json()["kind"] == "generator"
    assert client.get(f"{address}/files/config.json").json()["lineage"] == [seeds.digest("base")]
    job_id = client.post("/v1/jobs", json=sampling(generator.id)).json()["id"]
    kept = client.delete(address)
    assert (kept.status_code, kept.json()["code"]) == (409, "conflict")
    client.post(f"/v1/jobs/{job_id}:cancel")
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404 and not (folders["artifacts"] / "generator_1").exists()


OWN = {"family": "generation", "generator": {"train_after": 2, "top": 3}, "base": "base"}
MERGES = {"family": "merge", "methods": ["linear"]}


def own(**changes):
    return seeds.body(space={"families": [OWN, MERGES]}, **changes)


def told(client, job_id):
    page = client.get(f"/jobs/{job_id}", headers={"accept": "text/html"})
    report = client.get(f"/v1/jobs/{job_id}/report")
    assert page.status_code == report.status_code == 200
    return client.get(f"/v1/jobs/{job_id}").json()["generator"], page.text, report.text


def test_a_search_tells_what_becomes_of_its_own_generator(client: httpx.Client, database: Database, parents):
    answer = client.post("/v1/jobs", json=own())
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    found, page, report = told(client, job_id)
    assert (found["state"], found["train_after"], found["ended"], found["elite"]) == ("awaited", 2, 0, [])
    assert "once 2 candidates have ended" in page and "its generator: awaited" in report
    with database.transaction() as s:
        for state in (JobState.PREPARING, JobState.RUNNING):
            jobs.move(s, job_id, state)
        step = steps.add(s, StepKind.TRAIN_GENERATOR, Device.CPU, job_id=job_id, payload={"elite": []})
        events.append(s, job_id, generators.PLANNED, {"step": step.id, "ended": 2, "early": False, "elite": [4, 3]})
        events.append(s, job_id, generators.PROGRESS, {"done": 20, "of": 2700, "loss": 0.5, "seconds": 1.0})
    found, page, _ = told(client, job_id)
    assert (found["state"], found["elite"], found["training"]["done"]) == ("training", [4, 3], 20)
    assert "being trained" in page and "number 4, 3" in page
    best = {"sources": [{"name": "base", "model": "base"}], "merge": {"method": "passthrough"}}
    ready = {"step": step.id, "generator": DIGEST, "artifact": "artifact_1", "seconds": 3.0, "best": best, "trials": 5}
    with database.transaction() as s:
        events.append(s, job_id, generators.READY, ready)
    found, page, report = told(client, job_id)
    assert (found["state"], found["artifact"]) == ("ready", "artifact_1")
    assert "samples are proposed" in page and "learned from number 4, 3" in report


def test_a_search_says_that_it_goes_on_without_its_generator(client: httpx.Client, database: Database, parents):
    job_id = client.post("/v1/jobs", json=own()).json()["id"]
    with database.transaction() as s:
        events.append(s, job_id, generators.FAILED, {"step": None, "code": "out_of_memory", "message": "too large"})
    found, page, report = told(client, job_id)
    assert (found["state"], found["failure"]["code"]) == ("failed", "out_of_memory")
    assert "goes on without samples" in page and "out_of_memory" in report
    client.post(f"/v1/jobs/{job_id}:cancel")


def test_a_search_that_ended_before_says_so(client: httpx.Client, parents):
    job_id = client.post("/v1/jobs", json=own()).json()["id"]
    client.post(f"/v1/jobs/{job_id}:cancel")
    found, page, _ = told(client, job_id)
    assert found["state"] == "not trained" and "the search ended before" in page


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"budget": {"trials": 2}}, "empty_budget"),
        ({"space": {"families": [{**OWN, "generator": {"train_after": 1}}]}}, "invalid_input"),
        ({"space": {"families": [{**OWN, "selectors": ["block:99"]}, MERGES]}}, "bad_selector"),
        ({"space": {"families": [{**OWN, "base": "bass"}, MERGES]}}, "unknown_model"),
    ],
)
def test_what_is_wrong_with_an_own_generator_is_said_at_once(client: httpx.Client, parents, changes, code):
    answer = client.post("/v1/jobs", json={**own(), **changes})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


def test_a_clone_trains_a_generator_of_its_own_again(client: httpx.Client, parents):
    job_id = client.post("/v1/jobs", json=own()).json()["id"]
    clone = client.post(f"/v1/jobs/{job_id}:clone", json={"changes": {"seed": 8}}).json()["id"]
    assert client.get(f"/v1/jobs/{clone}").json()["request"]["space"]["families"][-1]["generator"]["train_after"] == 2


def test_an_estimate_reckons_the_training(client: httpx.Client, parents):
    plain = client.post("/v1/jobs:estimate", json=seeds.body(space={"families": [MERGES]})).json()
    with_it = client.post("/v1/jobs:estimate", json=own()).json()
    steps_of = {each["name"]: each["value"] for each in with_it["inputs"]}
    assert steps_of["training_steps"] == 2700
    assert with_it["device_seconds"][1] - plain["device_seconds"][1] == pytest.approx(
        steps_of["seconds_of_training"], rel=0.01
    )
    assert any("own generator" in said for said in with_it["assumptions"])


def test_the_snapshots_of_a_run_become_models_of_its_training(client: httpx.Client, folders, parents):
    run = folders["models"] / "run"
    for step in (200, 1000):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        (run / f"checkpoint-{step}" / "model.safetensors").touch()
    answer = client.post("/v1/jobs", json=body(trajectory={"folder": "local:run"}))
    assert answer.status_code == 202, answer.text
    request = client.get(answer.headers["location"]).json()["request"]
    assert [model["name"] for model in request["models"]] == ["base", "checkpoint-200", "checkpoint-1000"]
    nothing = client.post("/v1/jobs", json=body(trajectory={"folder": "local:nowhere"}))
    assert (nothing.status_code, nothing.json()["where"]) == (422, "trajectory.folder")
