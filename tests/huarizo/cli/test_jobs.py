"""The verbs on jobs against the real API over a real database, with no worker behind it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from api.app import create_app
from core.errors import BudgetError, InvalidInputError
from core.settings import Settings
from huarizo.cli import artifacts, estimate, jobs, report
from huarizo.cli.patience import patiently
from huarizo.client import ApiProblem, Client
from huarizo.embedded.ports import free_port
from store import artifacts as records

if TYPE_CHECKING:
    from store.session import Database

JOB: dict[str, Any] = {
    "kind": "search",
    "name": "two [of] a kind",
    "models": [{"name": "a", "ref": "local:a"}, {"name": "b", "ref": "local:b"}],
    "space": {"families": [{"family": "merge", "methods": ["linear"]}]},
    "objective": {"tasks": [{"task": "arc_easy"}]},
    "budget": {"trials": 4},
}


@pytest.fixture
def client(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The API over a fresh database, on a thread; verbs find it by HUARIZO_API_URL."""
    for name in Settings.settings_names():
        monkeypatch.delenv(name, raising=False)
    for model in ("a", "b"):
        (tmp_path / model).mkdir()
    app = create_app(Settings(home=tmp_path, model_roots=(tmp_path,)), database)
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    monkeypatch.setenv("HUARIZO_API_URL", f"http://127.0.0.1:{port}")
    try:
        with Client(f"http://127.0.0.1:{port}") as found:
            patiently(found.ready, seconds=60.0, first_pause=0.1)
            yield found
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(JOB))
    return str(path)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """What went to stdout, which must be JSON and nothing else."""
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("client")
def test_a_job_s_life_by_the_command_line(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs.submit(job_file, watch=False, idempotency_key="once", as_json=True) == 0
    posted = printed(capsys)
    assert posted["state"] == "queued"
    assert jobs.submit(job_file, watch=False, idempotency_key="once", as_json=False) == 0
    assert capsys.readouterr().out.strip() == posted["id"]

    jobs.list_jobs(state=None, limit=10, as_json=True)
    assert [job["id"] for job in printed(capsys)] == [posted["id"]]
    jobs.list_jobs(state="succeeded", limit=10, as_json=True)
    assert printed(capsys) == []
    jobs.list_jobs(state=None, limit=10, as_json=False)
    assert "two [of] a kind" in capsys.readouterr().out

    jobs.show(posted["id"], as_json=True)
    assert printed(capsys)["request"]["budget"]["trials"] == 4
    jobs.show(posted["id"], as_json=False)
    assert "0 of 4 trials" in capsys.readouterr().out
    jobs.list_trials(posted["id"], order="score", limit=10, as_json=True)
    assert printed(capsys) == []

    jobs.act("cancel", posted["id"], as_json=False)
    assert capsys.readouterr().out.strip() == f"{posted['id']} cancelled"
    jobs.act("cancel", posted["id"], as_json=True)
    assert printed(capsys)["state"] == "cancelled"
    with pytest.raises(ApiProblem) as caught:
        jobs.act("pause", posted["id"], as_json=True)
    assert (caught.value.status, caught.value.code) == (409, "conflict")


def test_watching_ends_with_the_job_and_a_cancelled_one_is_exit_code_1(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    posted = client.submit(JOB)
    client.cancel(posted["id"])
    assert jobs.watch(posted["id"], as_json=False) == 1
    shown = capsys.readouterr()
    assert shown.out.strip() == f"{posted['id']} cancelled"
    assert shown.err.startswith("cancelled  trials 0/4")


def test_the_service_s_refusals_keep_their_code_and_place(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ApiProblem) as caught:
        client.job("job_nothing")
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    with pytest.raises(ApiProblem) as caught:
        client.submit({**JOB, "objective": {"tasks": [{"task": "arc_eazy"}]}})
    assert (caught.value.status, caught.value.code) == (422, "unknown_task")
    assert "'arc_easy'" in caught.value.detail
    with pytest.raises(ApiProblem) as caught:
        client.download("artifact_nothing", "x", tmp_path / "x")
    assert caught.value.code == "not_found"


def test_catalogue_models_and_events_are_read(client: Client) -> None:
    assert "linear" in {method["name"] for method in client.catalog()["methods"]}
    posted = client.submit(JOB)
    assert client.events(posted["id"])[0]["payload"] == {"state": "queued"}
    assert client.events(posted["id"], after=client.events(posted["id"])[-1]["id"]) == []
    model = client.register_model("mine", "local:a")
    assert [(found["id"], found["ref"]) for found in client.models() if found["name"] == "mine"] == [
        (model["id"], "local:a")
    ]


def test_a_word_that_is_no_state_or_order_is_refused_here() -> None:
    with pytest.raises(InvalidInputError, match="'finished'"):
        jobs.list_jobs(state="finished", limit=1, as_json=True)
    with pytest.raises(InvalidInputError, match="'size'"):
        jobs.list_trials("job_1", order="size", limit=1, as_json=True)


def test_a_job_is_extended_and_cloned_by_the_command_line(
    client: Client, job_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    posted = client.submit(JOB)
    limits = {"trials": 9, "item_evaluations": None, "seconds": None}
    jobs.extend(posted["id"], limits, as_json=False)
    assert capsys.readouterr().out.strip() == f"{posted['id']} queued"
    with pytest.raises(BudgetError, match="--trials"):
        jobs.extend(posted["id"], {"trials": None}, as_json=False)
    changes = ["seed=8", "budget.trials=12", "name=third try"]
    assert jobs.clone(posted["id"], changes, warm_start=True, watch=False, idempotency_key=None, as_json=True) == 0
    request = client.job(printed(capsys)["id"])["request"]
    assert (request["seed"], request["budget"]["trials"], request["name"]) == (8, 12, "third try")
    assert request["warm_start"] == [posted["id"]]
    warm = [posted["id"]]
    assert jobs.submit(job_file, watch=False, idempotency_key=None, as_json=True, warm_start=warm) == 0
    assert client.job(printed(capsys)["id"])["request"]["warm_start"] == warm


def test_changes_are_paths_and_values() -> None:
    assert jobs.patch_of(["a.b=1", "a.c=null", "name=x y", "tasks=[1]"]) == {
        "a": {"b": 1, "c": None},
        "name": "x y",
        "tasks": [1],
    }
    for word in ("seed", "=1", "a..b=1", "."):
        with pytest.raises(InvalidInputError, match="path=value"):
            jobs.patch_of([word])
    with pytest.raises(InvalidInputError, match="name it once"):
        jobs.patch_of(["a=1", "a.b=2"])


def test_a_job_s_cost_is_told_before_it_is_posted(
    client: Client, job_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate.run(job_file, device="cpu", workers=None, as_json=True)
    assert printed(capsys)["candidates"] == [4, 4, 4]
    estimate.run(job_file, device=None, workers=None, as_json=False)
    shown = capsys.readouterr().out
    # The folders of the parents are empty, so nobody knows how large they are.
    assert "items scored" in shown and "unknown" in shown and "ends by trials" in shown
    assert client.jobs() == []


def test_estimates_are_told_in_units_people_know() -> None:
    assert [estimate.time(seconds) for seconds in (90, 600, 10_000)] == ["90 s", "10 min", "2.8 h"]
    assert [estimate.size(count) for count in (100, 2048, 3 * 2**30)] == ["100 B", "2 KiB", "3.0 GiB"]


def test_a_report_is_saved_with_or_without_an_explanation(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posted = client.submit(JOB)
    place = tmp_path / "report.html"
    report.report(posted["id"], place, fresh=True, as_json=True)
    told = capsys.readouterr()
    assert json.loads(told.out) == {"job": posted["id"], "path": str(place), "bytes": place.stat().st_size}
    assert "without importance" in told.err
    assert "two [of] a kind" in place.read_text()
    with pytest.raises(ApiProblem) as caught:
        report.explain(posted["id"])
    assert caught.value.code == "conflict"


@pytest.mark.usefixtures("client")
def test_a_training_is_posted_and_shown_by_the_same_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"kind": "generator", "models": JOB["models"][:1], "training": {"seed": 5}}))
    assert jobs.submit(str(path), watch=False, idempotency_key=None, as_json=True) == 0
    posted = printed(capsys)
    assert posted["kind"] == "generator"
    jobs.show(posted["id"], as_json=False)
    shown = capsys.readouterr().out
    assert "0 of 2,700 steps" in shown and "none yet" in shown
    jobs.list_jobs(state=None, limit=10, as_json=False)
    assert posted["id"] in capsys.readouterr().out
    path.write_text(json.dumps({"kind": "generator", "models": JOB["models"][:1], "training": {"chunk": 1}}))
    with pytest.raises(ValueError, match=r"training\.chunk"):
        jobs.submit(str(path), watch=False, idempotency_key=None, as_json=True)


def test_artifacts_are_listed_and_deleted(
    client: Client, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifacts" / "generator_1"
    folder.mkdir(parents=True)
    with database.transaction() as session:
        kept = records.create(
            session,
            job_id=None,
            trial_id=None,
            kind="generator",
            path=folder.name,
            files=(),
            bytes=5,
            weights_digest="a",
        )
    artifacts.list_artifacts(limit=5, as_json=True)
    assert [artifact["id"] for artifact in printed(capsys)] == [kept.id]
    artifacts.list_artifacts(limit=5, as_json=False)
    assert "generator" in capsys.readouterr().out
    artifacts.delete(kept.id)
    assert capsys.readouterr().out.strip() == f"{kept.id} deleted"
    assert client.artifacts() == []
    with pytest.raises(ApiProblem):
        artifacts.delete(kept.id)
