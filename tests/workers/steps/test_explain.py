import json

import pytest
from sqlalchemy import update

from core.records import Device, StepKind
from core.settings import Settings
from core.states import JobState, StepState
from store import artifacts, explanations, steps
from store.tables import trials
from tests.workers.phases.conftest import new_search as new_search
from workers.phases import explaining
from workers.processes import Process
from workers.runner.manifest import sha256_of
from workers.steps import explain


@pytest.fixture
def explained(new_search, tmp_path):
    """Runs a search and has it explained; (search, artifact, what the file says)."""

    def run(**changes):
        search = new_search(**{"budget": {"trials": 14}, "racing": {"rungs": [6, 12]}, **changes})
        assert search.go().state is JobState.SUCCEEDED, search.job.failure
        settings = Settings(database_url=search.database.url, broker_url=None, artifacts=tmp_path)
        process = Process(settings)
        search.change(lambda session: explanations.ask(session, search.job_id))
        process.answer("inspect")
        process.database.dispose()
        with search.database.reading() as session:
            kept = explanations.get(session, search.job_id)
        return search, kept, json.loads((tmp_path / kept.path / "explain.json").read_text())

    return run


def test_an_explanation_tells_what_the_search_found_out(explained, tmp_path):
    search, kept, found = explained()
    candidates = search.candidates
    assert found["results"] == len(candidates) and found["items_scored"] == search.job.items_scored
    (group,) = found["importance"]["groups"]
    assert group["trials"] == len(candidates) and {p["name"] for p in group["parameters"]} == set(candidates[0].values)
    (structure,) = found["sensitivity"]["structures"]
    assert {entry["source"] for entry in structure["sources"]} == {"a", "b"}
    assert [len(axis["points"]) for axis in found["slices"]] == [len(candidates)] * 2
    # The best is found at its place: the last peak has the highest macro of all that were scored in full.
    full = [trial.macro for trial in candidates if trial.scored_items == 24]
    assert found["best_so_far"][-1]["macro"] == max(full)
    assert found["best_so_far"][-1]["items"] <= found["items_scored"]
    assert found["rungs"][0]["reached"] == len(candidates) and found["rungs"][-1]["reached"] == len(full)
    (task,) = found["tasks"]
    assert task["best_parent"] == 0.5 and len(task["candidates"]) == min(3, len(full))
    assert (found["outside"]["trials"], found["outside"]["leads"]) == ([], False)
    assert found["refinements"] == [] and found["provenance"]["versions"]["optuna"]
    assert {file["path"] for file in kept.files} == {"explain.json", "huarizo.json"}
    entry = next(file for file in kept.files if file["path"] == "explain.json")
    assert entry["sha256"] == sha256_of(tmp_path / kept.path / "explain.json")


def test_what_was_refined_tensor_by_tensor_is_named_and_enters_no_fit(new_search):
    search = new_search(budget={"trials": 14}, racing={"rungs": [6, 12]})
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    full = [trial for trial in search.candidates if trial.macro is not None and trial.scored_items == 24]
    best, worst = min(full, key=lambda t: (-t.macro, t.number)), max(full, key=lambda t: (-t.macro, t.number))

    def explained_without(trial):
        outside = update(trials).where(trials.c.id == trial.id).values(values=None, optuna_number=None)
        search.change(lambda session: session.execute(outside))
        with search.database.reading() as session:
            return explaining.explain(session, search.job)

    found = explained_without(worst)
    assert (found["outside"]["trials"], found["outside"]["leads"]) == ([worst.number], False)
    assert found["results"] == len(search.candidates) - 1
    assert worst.number not in {point["number"] for axis in found["slices"] for point in axis["points"]}
    found = explained_without(best)
    assert found["outside"]["trials"] == sorted([best.number, worst.number])
    assert found["outside"]["leads"] is True


def test_nothing_of_held_out_items_enters_it(explained):
    search, _kept, found = explained()
    assert search.job.verdict is not None
    assert "heldout" not in json.dumps(found) and "verdict" not in found


def test_a_failure_leaves_no_folder_and_does_not_fail_the_job(new_search, tmp_path, monkeypatch):
    search = new_search(budget={"trials": 2})
    while not any(trial.macro is not None for trial in search.candidates):
        search.look()
        assert search.work()
    settings = Settings(database_url=search.database.url, broker_url=None, artifacts=tmp_path)
    process = Process(settings)

    def broken(*_args, **_kinds):
        raise RuntimeError("no room")

    monkeypatch.setattr(explain.artifacts, "create", broken)
    asked = search.change(lambda session: explanations.ask(session, search.job_id))
    for _ in range(2):
        step = search.claim(Device.NONE, StepKind.EXPLAIN)
        if step is None:
            break
        process._run(step)
    process.database.dispose()
    assert list(tmp_path.iterdir()) == []
    with search.database.reading() as session:
        assert steps.get(session, asked.id).failure.message == "RuntimeError: no room"
        assert artifacts.of_job(session, search.job_id) == []
        assert steps.get(session, asked.id).state is not StepState.DONE
    assert search.job.state is JobState.RUNNING
