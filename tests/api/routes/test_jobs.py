from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from core.records import StepKind
from core.states import JobState
from store import jobs, steps, trials
from store.session import Database
from tests.api import seeds


@pytest.fixture
def parents(database: Database) -> None:
    with database.transaction() as s:
        for name in seeds.PARENTS:
            seeds.ready_model(s, name)


def test_a_job_is_accepted_with_its_address_and_its_first_step(client: httpx.Client, database: Database, parents):
    answer = client.post("/v1/jobs", json=seeds.body())
    assert answer.status_code == 202
    found = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{found['id']}"
    assert (found["state"], found["name"], found["trials"]) == ("queued", "maths × code", {})
    with database.reading() as s:
        assert [step.kind for step in steps.of_job(s, found["id"])] == [StepKind.ADVANCE]
    detail = client.get(answer.headers["location"]).json()
    assert detail["request"]["seed"] == 7
    assert detail["request"]["space"]["families"][0]["methods"] == ["linear", "slerp", "ties"]
    assert [(use["limit"], use["used"], use["allowed"]) for use in detail["progress"]["budget"]] == [
        ("trials", 0, 40),
        ("item_evaluations", 0, 60000),
        ("seconds", 0, 3600),
    ]


def changed(path: str, value: object) -> dict:
    """The valid body with one value put in its place."""
    body = seeds.body()
    *way, last = path.split(".")
    at = body
    for part in way:
        at = at[int(part)] if part.isdigit() else at[part]
    at[int(last) if last.isdigit() else last] = value
    return body


MERGE = "space.families.0"
REFUSED = [
    ("space.families.0.methods", ["linear", "tyes"], "unknown_method", "'ties'"),
    ("space.families.1.presets", ["dos"], "unknown_layout", "'dus'"),
    ("space.families.1.sources", ["math"], "unknown_model", "'maths'"),
    ("space.families.0.base", "bass", "unknown_model", "'base'"),
    ("space.families.0.base", None, "outside_space", "base"),
    ("objective.tasks", [{"task": "arc_eazy"}], "unknown_task", "'arc_easy'"),
    ("strategy", {"name": "tpa"}, "unknown_strategy", "'tpe'"),
    ("models.0.ref", "bace", "unknown_model", "'base'"),
    ("budget", {}, "empty_budget", "budget"),
    ("budget", {"trials": 0}, "empty_budget", "budget"),
    ("space.families.0.params", {"weight": {"low": 2, "high": 1}}, "outside_space", "weight"),
    ("space.families.0.params", {"wait": 1}, "outside_space", "wait"),
    ("space.families.0.params", {"density": 1.5}, "outside_space", "density"),
    ("space.families.0.params", {"weight": 0}, "invalid_recipe", "sum to 0"),
    ("models.0.ref", "local:../../etc", "path_not_allowed", "model root"),
    ("models.0.ref", "local:/etc/passwd", "path_not_allowed", "model root"),
    ("models.0.ref", "local:nursery/gone", "missing_checkpoint", "nursery/gone"),
    ("models.0.ref", "hub:../x", "unknown_model", "hub"),
    ("budget.trials", -1, "invalid_input", "budget.trials"),
    ("objective.tasks.0.weight", "heavy", "invalid_input", "objective.tasks.0.weight"),
    ("surprise", 1, "invalid_input", "surprise"),
    ("kind", "merge", "invalid_input", "kind"),
    ("models.1.name", "base", "invalid_input", "rename one"),
    ("name", "x" * 201, "invalid_input", "name"),
]


@pytest.mark.parametrize(("path", "value", "code", "hint"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_job_that_breaks_a_rule_is_refused_at_once(library, path, value, code, hint):
    client, _ = library
    answer = client.post("/v1/jobs", json=changed(path, value))
    found = answer.json()
    assert (answer.status_code, found["code"]) == (422, code), found
    assert hint in found["detail"], found
    if code == "invalid_input":
        assert found["errors"][0]["message"] and "Value error" not in found["detail"]
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_parents_that_do_not_fit_are_refused_before_anything_runs(client: httpx.Client, database: Database):
    with database.transaction() as s:
        for name, layers in zip(seeds.PARENTS, (8, 8, 6), strict=True):
            seeds.ready_model(s, name, layers=layers)
    answer = client.post("/v1/jobs", json=seeds.body())
    assert (answer.status_code, answer.json()["code"]) == (422, "parents_do_not_fit")
    assert "8 and 6 layers" in answer.json()["detail"]
    layouts = seeds.body(space={"families": [{"family": "layout", "presets": ["dus"], "sources": ["maths", "code"]}]})
    assert client.post("/v1/jobs", json=layouts).status_code == 202


def test_a_layout_that_the_real_depth_cannot_have_is_refused(client: httpx.Client, database: Database):
    with database.transaction() as s:
        for name in seeds.PARENTS:
            seeds.ready_model(s, name, layers=1)
    answer = client.post("/v1/jobs", json=seeds.body())
    assert (answer.status_code, answer.json()["code"]) == (422, "layout_out_of_range")


def test_models_that_are_not_inspected_yet_may_be_named_by_their_place(client: httpx.Client):
    models = [{"name": name, "ref": f"local:nursery/{name}"} for name in seeds.PARENTS]
    assert client.post("/v1/jobs", json=seeds.body(models=models)).status_code == 202


def test_a_task_of_a_configured_folder_is_known(client: httpx.Client, folders, parents):
    body = seeds.body(objective={"tasks": [{"task": "alpacas"}]})
    assert client.post("/v1/jobs", json=body).json()["code"] == "unknown_task"
    (folders["tasks"] / "alpacas.yaml").write_text("task: alpacas\ndoc_to_text: !function utils.prompt\n")
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_one_key_is_one_job_however_often_and_at_once_it_is_posted(client: httpx.Client, parents):
    def post(_number: int) -> httpx.Response:
        return client.post("/v1/jobs", json=seeds.body(), headers={"idempotency-key": "k-1"})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(post, range(60)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1
    other = client.post("/v1/jobs", json=seeds.body(seed=8), headers={"idempotency-key": "k-1"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    for odd in ("", "x" * 300, "with space"):
        assert client.post("/v1/jobs", json=seeds.body(), headers={"idempotency-key": odd}).status_code == 422


def test_pages_follow_their_links_and_see_each_job_once(client: httpx.Client, parents):
    posted = [client.post("/v1/jobs", json=seeds.body(seed=n)).json()["id"] for n in range(5)]
    seen, address = [], "/v1/jobs?limit=2"
    while address:
        answer = client.get(address)
        seen += [item["id"] for item in answer.json()["items"]]
        following = answer.links.get("next", {}).get("url")
        assert bool(following) == bool(answer.json()["next_cursor"])
        address = following
    assert seen == posted[::-1]
    client.post(f"/v1/jobs/{posted[0]}:cancel")
    assert [item["id"] for item in client.get("/v1/jobs?state=cancelled").json()["items"]] == [posted[0]]
    for query in ("limit=0", "limit=201", "cursor=nonsense", "state=tired", "limit=x"):
        assert client.get(f"/v1/jobs?{query}").status_code == 422


def test_a_job_tells_its_progress_and_its_parents_scores(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job = seeds.rich_job(s, count=12)
        every = trials.of_job(s, job.id)
    found = client.get(f"/v1/jobs/{job.id}").json()
    progress = found["progress"]
    candidates = [trial for trial in every if trial.origin != "parent"]
    assert sum(progress["trials"].values()) == len(candidates) == progress["budget"][0]["used"]
    full = [trial for trial in candidates if trial.scored_items == 200]
    best = max(full, key=lambda trial: trial.macro)
    assert progress["best"]["trial_id"] == best.id and progress["best"]["macro"] == best.macro
    assert [parent["label"] for parent in progress["parents"]] == list(seeds.PARENTS)
    assert progress["best_parent"]["label"] == "maths"
    assert progress["items_scored"] == job.items_scored > 0
    assert [(task["search_items"], task["heldout_items"]) for task in found["tasks"]] == [(200, 200)] * 2
    listed = client.get("/v1/jobs").json()["items"][0]
    assert (listed["best"], listed["trials"]) == (best.macro, progress["trials"])


def test_polling_costs_nothing_while_nothing_changes(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
    first = client.get(f"/v1/jobs/{job.id}")
    assert first.headers["etag"].startswith('W/"') and first.headers["retry-after"] == "1"
    known_tag = {"if-none-match": first.headers["etag"]}
    again = client.get(f"/v1/jobs/{job.id}", headers=known_tag)
    assert (again.status_code, again.content) == (304, b"")
    with database.transaction() as s:
        seeds.scored(s, job, seeds.slerp(0.5), known, 0.6)
    changed = client.get(f"/v1/jobs/{job.id}", headers=known_tag)
    assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]
    client.post(f"/v1/jobs/{job.id}:cancel")
    assert "retry-after" not in client.get(f"/v1/jobs/{job.id}").headers


def test_pausing_resuming_and_cancelling_twice_is_once(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, known = seeds.running_job(s)
        seeds.trial(s, job, seeds.slerp(0.5), known)
    for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        for _ in range(2):
            answer = client.post(f"/v1/jobs/{job.id}:{action}")
            assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert client.get(f"/v1/jobs/{job.id}").json()["progress"]["trials"] == {"cancelled": 1}
    for action in ("pause", "resume"):
        answer = client.post(f"/v1/jobs/{job.id}:{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_cancelling_a_succeeded_job_is_a_conflict(client: httpx.Client, database: Database, folders):
    job = seeds.seeded(database, folders["artifacts"])
    answer = client.post(f"/v1/jobs/{job.id}:cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_events_are_read_on_from_where_one_stopped(client: httpx.Client, database: Database):
    with database.transaction() as s:
        job, _ = seeds.running_job(s)
    first = client.get(f"/v1/jobs/{job.id}/events?limit=2").json()["items"]
    rest = client.get(f"/v1/jobs/{job.id}/events?after={first[-1]['id']}").json()["items"]
    both = [*first, *rest]
    assert [event["payload"]["state"] for event in both if event["kind"] == "job_state"] == [
        "queued",
        "preparing",
        "running",
    ]
    assert [event["id"] for event in both] == sorted({event["id"] for event in both})
    assert client.get(f"/v1/jobs/{job.id}/events?after=-1").status_code == 422


def test_what_is_not_there_is_not_found(client: httpx.Client):
    for path in ("/v1/jobs/job_x", "/v1/jobs/job_x/events", "/v1/jobs/job_x/trials", "/v1/jobs/%F0%9F%A6%99"):
        assert (client.get(path).status_code, client.get(path).json()["code"]) == (404, "not_found")
    for action in ("cancel", "pause", "resume"):
        assert client.post(f"/v1/jobs/job_x:{action}").status_code == 404
    assert client.post("/v1/jobs/job_x:explode").status_code == 405


def test_a_failed_job_tells_why_without_telling_paths(client: httpx.Client, database: Database):
    from core.records import Failure

    with database.transaction() as s:
        job, _ = seeds.running_job(s)
        jobs.fail(s, job.id, Failure(code="truncated_checkpoint", message="'/srv/models/a/x.safetensors' is cut short"))
    found = client.get(f"/v1/jobs/{job.id}").json()
    assert found["state"] == JobState.FAILED
    assert found["failure"] == {
        "code": "truncated_checkpoint",
        "message": "'…/x.safetensors' is cut short",
        "where": None,
    }
    assert "/srv/models" not in client.get("/v1/jobs").text


def test_a_job_is_extended_until_its_search_has_ended(client: httpx.Client, database: Database, parents):
    posted = client.post("/v1/jobs", json=seeds.body()).json()
    address = f"/v1/jobs/{posted['id']}:extend"
    assert client.post(address, json={"budget": {"trials": 80}}).status_code == 200
    budget = client.get(f"/v1/jobs/{posted['id']}").json()["request"]["budget"]
    assert (budget["trials"], budget["seconds"]) == (80, 3600)
    refused = client.post(address, json={"budget": {"trials": 10}})
    assert (refused.status_code, refused.json()["code"], refused.json()["where"]) == (
        422,
        "empty_budget",
        "budget.trials",
    )
    assert client.post(address, json={"budget": {"trails": 10}}).json()["code"] == "invalid_input"
    client.post(f"/v1/jobs/{posted['id']}:cancel")
    ended = client.post(address, json={"budget": {"trials": 90}})
    assert (ended.status_code, ended.json()["code"]) == (409, "conflict")
    assert "warm_start" in ended.json()["detail"]


def test_a_clone_is_the_job_again_with_some_fields_changed(client: httpx.Client, database: Database, parents):
    posted = client.post("/v1/jobs", json=seeds.body()).json()
    changes = {"name": "again", "seed": None, "budget": {"trials": 99, "seconds": None}}
    address, key = f"/v1/jobs/{posted['id']}:clone", {"Idempotency-Key": "k"}
    answer = client.post(address, json={"changes": changes, "warm_start": True}, headers=key)
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    request = client.get(answer.headers["location"]).json()["request"]
    assert (request["name"], request["seed"], request["warm_start"]) == ("again", 0, [posted["id"]])
    assert request["budget"] == {"trials": 99, "item_evaluations": 60000, "seconds": None}
    twice = client.post(address, json={"changes": changes, "warm_start": True}, headers=key)
    assert twice.json()["id"] == answer.json()["id"] and twice.headers["idempotent-replayed"] == "true"
    plain = client.get(client.post(address).headers["location"]).json()["request"]
    assert plain == client.get(f"/v1/jobs/{posted['id']}").json()["request"]


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"budget": {"trails": 1}}, "invalid_input", "budget.trails"),
        ({"objective": {"tasks": [{"task": "arc_eazy"}]}}, "unknown_task", "objective.tasks"),
        ({"warm_start": ["job_NONE"]}, "invalid_input", "warm_start"),
        ({"models": None}, "invalid_input", "models"),
    ],
)
def test_a_clone_that_breaks_a_rule_is_refused_like_a_job(
    client: httpx.Client, database: Database, parents, changes, code, where
):
    posted = client.post("/v1/jobs", json=seeds.body()).json()
    refused = client.post(f"/v1/jobs/{posted['id']}:clone", json={"changes": changes})
    assert (refused.status_code, refused.json()["code"], refused.json()["where"]) == (422, code, where)
    assert client.post("/v1/jobs/job_NONE:clone").status_code == 404
    assert len(client.get("/v1/jobs").json()["items"]) == 1
