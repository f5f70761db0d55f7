from __future__ import annotations

import httpx

from core.records import Device, StepKind
from core.states import JobState, StepState
from store import jobs, steps, trials
from store.session import Database
from tests.api import seeds


def test_trials_are_listed_by_number_or_by_score(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job = seeds.rich_job(s, count=8)
    by_number = client.get(f"/v1/jobs/{job.id}/trials?limit=200").json()["items"]
    assert [trial["number"] for trial in by_number] == list(range(len(by_number)))
    assert [trial["origin"] for trial in by_number[:3]] == ["parent"] * 3
    assert {(t["family"], t["method"]) for t in by_number if t["method"] == "dus"} <= {("layout", "dus")}
    assert "recipe" not in by_number[0] and "resolved" not in by_number[0]
    macros, cursor = [], None
    while True:
        query = {"order": "score", "limit": 4} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/v1/jobs/{job.id}/trials", params=query).json()
        macros += [trial["macro"] for trial in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    scored = [macro for macro in macros if macro is not None]
    assert scored == sorted(scored, reverse=True) and macros[len(scored) :] == [None] * (len(macros) - len(scored))
    assert client.get(f"/v1/jobs/{job.id}/trials?order=age").status_code == 422


def test_a_trial_tells_its_recipe_in_short_and_resolved(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
        made = seeds.scored(s, job, seeds.ties(0.5), known, 0.6)
    found = client.get(f"/v1/trials/{made.id}").json()
    assert found["recipe"]["merge"]["params"]["density"] == 0.5
    assert found["resolved"]["sources"][0]["weights"] == seeds.digest("base")
    assert len(found["resolved"]["layers"]) == 8
    assert found["recipe_digest"] == made.recipe_digest
    assert [score["n"] for score in found["scores"]] == [200, 200]
    assert found["macro"] == made.macro
    assert client.get("/v1/trials/trial_x").status_code == 404


def test_an_export_is_queued_once_and_runs_although_the_job_has_ended(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
        made = seeds.scored(s, job, seeds.slerp(0.5), known, 0.6)
        jobs.cancel(s, job.id)
    answer = client.post(f"/v1/trials/{made.id}:export")
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/steps/{answer.json()['id']}"
    again = client.post(f"/v1/trials/{made.id}:export", json={"max_shard_bytes": 4096})
    assert again.json()["id"] == answer.json()["id"]
    with database.transaction() as s:
        step = steps.claim(s, owner="w", devices=(Device.CPU,), lease_seconds=60)
    assert step is not None
    assert (step.id, step.kind, step.trial_id) == (answer.json()["id"], StepKind.EXPORT, made.id)
    assert step.state is StepState.RUNNING and step.payload["asked"] is True
    with database.transaction() as s:
        steps.finish(s, step.id, step.fence, {"artifact": "artifact_1"})
    done = client.get(answer.headers["location"]).json()
    assert (done["state"], done["result"], done["failure"]) == ("done", {"artifact": "artifact_1"}, None)


def test_a_finished_export_shows_among_the_trials_artifacts(client: httpx.Client, database: Database, folders):
    job = seeds.seeded(database, folders["artifacts"])
    detail = client.get(f"/v1/jobs/{job.id}").json()
    winner = detail["verdict"]["winner"]["trial_id"]
    assert client.get(f"/v1/trials/{winner}").json()["artifacts"] == detail["artifacts"] != []


def test_what_was_not_scored_cannot_be_exported(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
        queued = seeds.trial(s, job, seeds.slerp(0.5), known)
        assert trials.get(s, queued.id).macro is None and jobs.get(s, job.id).state is JobState.RUNNING
    answer = client.post(f"/v1/trials/{queued.id}:export")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert client.post("/v1/trials/trial_x:export").status_code == 404
    odd = client.post(f"/v1/trials/{queued.id}:export", json={"dtype": "int4"})
    assert (odd.status_code, odd.json()["where"]) == (422, "dtype")
