"""Whole searches, from post to checkpoint, with the real rooms and a tiny family."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import select

from core.checkpoint import weights_digest
from core.errors import NonFiniteWeightsError
from core.outcomes import bits
from core.states import JobState, TrialState
from merging.resident import Resident
from store import artifacts, events, jobs, models, outcomes, tasks
from store import tables as rows
from tests.workers.conftest import ALWAYS, SMALL
from workers.runner.work import run_next


def test_a_search_runs_from_post_to_a_checkpoint(finished):
    service, job = finished
    found = service.trials(job.id)
    parents, candidates = ([t for t in found if (t.origin == "parent") is wanted] for wanted in (True, False))
    assert [t.label for t in parents] == ["base", "arc", "wino", "hella"]
    assert all(t.state in (TrialState.SCORED, TrialState.STOPPED) and t.macro_heldout is not None for t in parents)
    assert len(candidates) == 4 and all(t.state.final and t.told for t in candidates)
    verdict = job.verdict
    assert verdict["verdict"] in ("gain", "no gain", "worse")
    # Four parents and the finalists were each read once.
    assert verdict["heldout_reads"] == job.heldout_reads == 4 + len(verdict["tested"])
    with service.database.reading() as session:
        kept = artifacts.of_job(session, job.id)[0]
    folder = service.settings.artifacts / kept.path
    manifest = json.loads((folder / "huarizo.json").read_text())
    assert manifest["verdict"] == verdict
    assert weights_digest(folder) == manifest["weights_digest"] == kept.weights_digest
    winner = next(t for t in found if t.id == verdict["winner"]["trial_id"])
    assert winner.weights_digest == kept.weights_digest
    assert "optimistic" in (folder / "README.md").read_text()


def test_no_outcome_is_scored_twice_and_scores_are_reproduced_from_outcomes(finished):
    service, job = finished
    with service.database.reading() as session:
        for row in session.execute(select(rows.outcomes)):
            assert row.writes == len(bits(bytes(row.presence)))
        for trial in service.trials(job.id):
            for score in trial.heldout:
                content = tasks.get(session, score.task, job.contents[score.task])
                kept = outcomes.load(session, trial.recipe_digest, job.fingerprints[score.task])
                right = kept.select(content.side("heldout")).correct
                assert score.n == len(right) and score.value == pytest.approx(sum(right) / len(right))


def test_a_second_job_over_the_same_parents_scores_nothing_again(finished):
    service, job = finished
    again = service.finish(service.post(export=ALWAYS).id)
    assert again.state is JobState.SUCCEEDED
    assert again.items_scored == 0
    first, second = service.trials(job.id), service.trials(again.id)
    assert [(t.recipe_digest, t.macro) for t in first] == [(t.recipe_digest, t.macro) for t in second]
    # The same held-out items were read again, and the count says so.
    assert again.verdict["heldout_reads"] == 2 * job.verdict["heldout_reads"]


def test_finalists_are_ranked_before_held_out_is_opened(finished):
    service, job = finished
    with service.database.reading() as session:
        history = events.after(session, job.id, 0, 1000)
    noted = next(i for i, event in enumerate(history) if event.kind == "finalists")
    states = [event.payload.get("state") for event in history[: noted + 1] if event.kind == "job_state"]
    assert states[-1] == "confirming"
    ranked = [t["trial_id"] for t in [*job.verdict["tested"], *job.verdict["unread"]]]
    assert ranked == history[noted].payload["ranked"]


def test_the_same_seed_gives_the_same_search(service):
    def run(seed):
        job = service.finish(service.post(**SMALL | {"budget": {"trials": 4}, "seed": seed}).id)
        return [(t.values, t.macro) for t in service.trials(job.id) if t.origin == "proposed"]

    first = run(3)
    assert first and first == run(3)
    assert first != run(4)


def test_models_may_be_named_as_they_were_registered(service):
    with service.database.transaction() as session:
        for name in ("base", "arc"):
            models.register(session, f"my-{name}", f"local:nursery/{name}")
    named = [{"name": "base", "ref": "my-base"}, {"name": "arc", "ref": "my-arc"}]
    job = service.finish(service.post(**SMALL | {"models": named}).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    # The same models by their places are the same candidates: nothing is scored again.
    again = service.finish(service.post(**SMALL).id)
    assert again.state is JobState.SUCCEEDED and again.items_scored == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"models": [{"name": "base", "ref": "local:nursery/nobody"}]}, "missing_checkpoint"),
        ({"models": [{"name": "base", "ref": "local:../outside"}]}, "path_not_allowed"),
        ({"models": [{"name": "base", "ref": "unregistered"}]}, "unknown_model"),
        ({"objective": {"tasks": [{"task": "nursery_ark"}]}}, "unknown_task"),
    ],
)
def test_bad_input_fails_the_job_with_a_stable_code_before_anything_is_built(service, change, code):
    if "models" in change:
        change["models"] += [{"name": n, "ref": f"local:nursery/{n}"} for n in ("arc", "wino", "hella")]
    job = service.finish(service.post(**change).id)
    assert job.state is JobState.FAILED
    assert job.failure.code == code, job.failure
    assert not service.trials(job.id)


def test_candidates_that_cannot_be_built_fail_the_job_in_the_end_and_leave_the_parents_scores(service, monkeypatch):
    build = Resident.build

    def spoilt(self, recipe):
        if recipe.layers[0].method != "passthrough":
            raise NonFiniteWeightsError("tensor 'x' holds NaN", where="x")
        return build(self, recipe)

    monkeypatch.setattr(Resident, "build", spoilt)
    job = service.finish(service.post(**SMALL | {"budget": {"trials": 20}, "max_consecutive_failures": 3}).id)
    assert job.state is JobState.FAILED
    assert job.failure.code == "non_finite_weights" and "3 candidates failed in a row" in job.failure.message
    states = [trial.state for trial in service.trials(job.id)]
    assert states[:2] == [TrialState.SCORED] * 2 and states.count(TrialState.FAILED) == 3
    assert job.items_scored == 2 * 32


def test_a_cancelled_job_stays_cancelled(service):
    job = service.post()
    service.control()
    with service.database.transaction() as session:
        jobs.cancel(session, job.id)
    assert service.finish(job.id).state is JobState.CANCELLED
    assert not service.trials(job.id)


def test_a_paused_job_goes_on_where_it_was(service):
    job = service.post(**SMALL)
    runner = service.runner()
    while not any(t.state is TrialState.SCORED for t in service.trials(job.id)):
        assert service.control() or run_next(runner)["ran"]
    with service.database.transaction() as session:
        jobs.pause(session, job.id)
    assert service.finish(job.id).state is JobState.PAUSED
    with service.database.transaction() as session:
        jobs.resume(session, job.id)
    assert service.finish(job.id).state is JobState.SUCCEEDED


def test_workers_import_only_what_their_role_needs():
    script = (
        "import sys\n"
        "import workers.app, workers.processes, workers.device, workers.reconciler\n"
        "assert not {'torch', 'optuna', 'transformers', 'lm_eval'} & set(sys.modules), 'worker'\n"
        "import workers.steps.inspect_model\n"
        "assert not {'torch', 'optuna'} & set(sys.modules), 'inspect'\n"
        "import workers.steps.advance\n"
        "assert 'optuna' in sys.modules and 'torch' not in sys.modules, 'control'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
