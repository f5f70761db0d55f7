"""Estimates over the API: what is registered, on disk or nowhere, and what earlier jobs took."""

from __future__ import annotations

import httpx
import pytest

from core.outcomes import Outcomes
from core.records import StepKind
from store import jobs, outcomes, steps, trials
from store.session import Database
from tests.api import seeds
from tests.store.makers import put


@pytest.fixture
def parents(database: Database) -> None:
    with database.transaction() as s:
        for name in seeds.PARENTS:
            seeds.ready_model(s, name)


def test_a_job_is_estimated_without_being_posted(client: httpx.Client, database: Database, parents):
    answer = client.post("/v1/jobs:estimate", json=seeds.body())
    assert answer.status_code == 200
    found = answer.json()
    low, likely, high = found["item_evaluations"]
    assert 0 < low <= likely <= high
    assert found["memory_bytes"] == sum(found["memory"].values())
    assert (found["device"], found["workers"], found["observed"]) == ("cpu", 1, 0)
    assert {"parameters.base", "tokens.arc_easy"} <= {one["name"] for one in found["inputs"]}
    assert client.get("/v1/jobs").json()["items"] == []


def test_what_would_be_refused_is_refused(client: httpx.Client, parents):
    refused = client.post("/v1/jobs:estimate", json=seeds.body(budget={}))
    assert (refused.status_code, refused.json()["code"]) == (422, "empty_budget")


def test_a_model_that_is_nowhere_here_leaves_the_times_open(client: httpx.Client, parents):
    body = seeds.body()
    body["models"][0]["ref"] = "hub:org/elsewhere@0123456"
    found = client.post("/v1/jobs:estimate", json=body).json()
    assert found["seconds"] is None and found["memory"] is None
    assert found["item_evaluations"][1] > 0


def test_the_pace_of_earlier_jobs_on_the_usual_device_is_taken(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, _known = seeds.running_job(s)
        for trial in trials.of_job(s, job.id):
            trials.record(
                s,
                trial.id,
                scored_items=200,
                scores=trial.scores,
                macro=trial.macro,
                seconds_added=0,
                provenance={"device": "NVIDIA H200"},
            )
        for step in steps.of_job(s, job.id, kinds=(StepKind.RUN_TRIAL,)):
            result = {"items": 400, "score_seconds": 4.0, "build_seconds": 1.0}
            put(s, "steps", step.id, state="done", result=result)
    found = client.post("/v1/jobs:estimate", json=seeds.body(parallel=2)).json()
    assert (found["device"], found["observed"], found["workers"]) == ("NVIDIA H200", 3, 2)
    per_item = next(one for one in found["inputs"] if one["name"] == "seconds_per_item")
    assert per_item["value"] == pytest.approx(0.01)
    asked = {"device": "cpu", "workers": 1}
    other = client.post("/v1/jobs:estimate", json=seeds.body(parallel=2), params=asked).json()
    assert (other["device"], other["observed"], other["workers"]) == ("cpu", 0, 1)


def test_what_earlier_jobs_scored_of_the_parents_is_reused(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, _known = seeds.running_job(s)
        jobs.pin_fingerprints(s, job.id, {name: f"{name} like then" for name in seeds.TASKS})
        for trial in trials.of_job(s, job.id)[:2]:
            # Documents 0 to 199 are on the search side.
            outcomes.commit(
                s,
                recipe_digest=trial.recipe_digest,
                fingerprint=f"{seeds.TASKS[0]} like then",
                task=seeds.TASKS[0],
                documents=400,
                outcomes=Outcomes.of((number, 1, 0.5) for number in range(190, 215)),
            )
    found = client.post("/v1/jobs:estimate", json=seeds.body()).json()
    assert found["reused_items"] == 20
    shots = {"tasks": [{"task": name, "num_fewshot": 3} for name in seeds.TASKS]}
    assert client.post("/v1/jobs:estimate", json=seeds.body(objective=shots)).json()["reused_items"] == 0
    rounded = seeds.body(export={"save_dtype": "float16"})
    assert client.post("/v1/jobs:estimate", json=rounded).json()["reused_items"] == 0
