import json
import shutil

import pytest
from sqlalchemy import update

from core.errors import CancelledError, InvalidInputError
from core.jobs import read_job
from core.records import StepKind
from core.states import JobState, StepState
from store import artifacts, events, generators, jobs
from store.tables import steps as rows
from workers.runner import train_generator
from workers.runner.work import run_next

QUICK = {
    "chunk": 32,
    "width": 32,
    "blocks": 1,
    "batch": 16,
    "autoencoder_steps": 40,
    "denoiser_steps": 60,
}


def post(service, **changes):
    fields = {"kind": "generator", "models": [{"name": "base", "ref": "local:nursery/base"}], "training": QUICK}
    with service.database.transaction() as session:
        return jobs.create(session, read_job(fields | changes))[0]


def kept(service, job_id):
    with service.database.reading() as session:
        found = artifacts.of_job(session, job_id)
        told = events.of_kind(session, job_id, generators.PROGRESS)
    return found, [event.payload for event in told]


def test_a_generator_is_trained_from_post_to_artifact_and_tells_how_it_goes(service):
    from merging.generation.artifact import digest_at, load

    job = service.finish(post(service).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    (artifact,), told = kept(service, job.id)
    folder = service.settings.artifacts / artifact.path
    assert artifact.kind == generators.KIND and digest_at(folder) == artifact.weights_digest
    generator = load(folder, digest=artifact.weights_digest)
    assert generator.config.settings.denoiser_steps == 60
    assert [each["done"] for each in told] == [20, 40, 60, 80, 100] and {each["of"] for each in told} == {100}
    assert all(each["loss"] > 0 for each in told)
    (step,) = service.steps(job.id, StepKind.TRAIN_GENERATOR)
    assert step.result["digest"] == artifact.weights_digest and step.result["metrics"] == generator.metrics
    assert json.loads((folder / "huarizo.json").read_text())["digest"] == artifact.weights_digest
    assert not list(service.settings.artifacts.glob("training/*"))


def test_a_training_that_loses_its_lease_goes_on_and_gives_the_same_generator(service, monkeypatch):
    whole = service.finish(post(service).id)
    job = post(service)
    append, said = events.append, []

    def break_off(session, job_id, kind, payload):
        if kind == generators.PROGRESS:
            said.append(payload["done"])
            if payload["done"] == 60:
                raise RuntimeError("the machine is gone")
        append(session, job_id, kind, payload)

    monkeypatch.setattr(train_generator.events, "append", break_off)
    runner = service.runner()
    while service.control():
        pass
    assert run_next(runner)["kind"] == "train_generator"
    monkeypatch.setattr(train_generator.events, "append", append)
    assert len(list(service.settings.artifacts.glob("training/*"))) == 1
    with service.database.transaction() as session:
        session.execute(update(rows).where(rows.c.job_id == job.id).values(not_before=None))
    ended = service.finish(job.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure
    (first,), _ = kept(service, whole.id)
    (second,), told = kept(service, job.id)
    assert second.weights_digest == first.weights_digest
    assert said == [20, 40, 60] and [each["done"] for each in told] == [20, 40, 80, 100]


def test_a_cancelled_training_leaves_nothing_behind(service):
    job = post(service)

    class Heard:
        """A heart that hears of the cancellation once something was told."""

        @property
        def cancelled(self):
            if not kept(service, job.id)[1]:
                return False
            with service.database.transaction() as session:
                jobs.cancel(session, job.id)
            return True

    step = service.until(StepKind.TRAIN_GENERATOR)
    with pytest.raises(CancelledError):
        train_generator.run(service.runner(), step, Heard())
    found, told = kept(service, job.id)
    assert found == [] and [each["done"] for each in told] == [20]
    assert not list(service.settings.artifacts.glob("*/*"))


def test_a_generator_learns_from_several_models_and_from_the_elite_of_a_search(finished):
    service, searched = finished
    models = [{"name": name, "ref": f"local:nursery/{name}"} for name in ("base", "arc")]
    job = service.finish(post(service, models=models, elite={"job": searched.id, "top": 2}).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    (artifact,), _ = kept(service, job.id)
    config = json.loads((service.settings.artifacts / artifact.path / "config.json").read_text())
    assert len(config["sources"]) == 4 and config["scored"] is True
    candidates = {trial.recipe_digest: trial.macro for trial in service.trials(searched.id) if trial.origin != "parent"}
    assert set(config["sources"][2:]) <= set(candidates)
    best = max(score for score in candidates.values() if score is not None)
    assert candidates[config["sources"][2]] <= best


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"elite": {"job": "job_0"}}, "invalid_input"),
        ({"training": {**QUICK, "selectors": ["block:99"]}}, "bad_selector"),
    ],
)
def test_what_cannot_be_learned_fails_the_job_before_anything_is_trained(service, changes, code):
    job = service.finish(post(service, **changes).id)
    assert (job.state, job.failure.code) == (JobState.FAILED, code)
    assert service.steps(job.id, StepKind.TRAIN_GENERATOR) == []


def test_a_step_that_failed_for_good_fails_the_job(service, monkeypatch):
    job = post(service)

    def nothing(*_):
        raise InvalidInputError("nothing can be learned from these")

    monkeypatch.setattr(train_generator, "sources_of", nothing)
    ended = service.finish(job.id)
    (step,) = service.steps(job.id, StepKind.TRAIN_GENERATOR)
    assert step.state is StepState.FAILED
    assert (ended.state, ended.failure.code) == (JobState.FAILED, "invalid_input")


#: The card's preset at the size of a nursery model.
CARD = {**QUICK, "latent": 32}
OWN = {
    "family": "generation",
    "generator": {"train_after": 2, "top": 2, "training": QUICK},
    "around": "best",
    "base": "base",
    "params": {"rho": {"low": 0.01, "high": 0.05, "log": True}},
}
MERGES = {"family": "merge", "methods": ["linear"]}
SEARCH = {
    "models": [{"name": name, "ref": f"local:nursery/{name}"} for name in ("base", "arc")],
    "space": {"families": [MERGES, OWN]},
    "objective": {"tasks": [{"task": "nursery_arc", "metric": "acc_norm"}]},
    "budget": {"trials": 8},
    "strategy": {"name": "sobol"},
    "export": {"when": "never"},
}


def test_a_search_trains_its_own_generator_and_scores_samples_from_it(service):
    job = service.finish(service.post(**SEARCH).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    (step,) = service.steps(job.id, StepKind.TRAIN_GENERATOR)
    assert step.state is StepState.DONE, step.failure
    (artifact,), told = kept(service, job.id)
    config = json.loads((service.settings.artifacts / artifact.path / "config.json").read_text())
    every = service.trials(job.id)
    by_id = {trial.id: trial for trial in every}
    learned = [by_id[id] for id in step.payload["elite"]]
    assert config["sources"] == [every[0].resolved.sources[0].weights, *(trial.recipe_digest for trial in learned)]
    assert [each["done"] for each in told] == [20, 40, 60, 80, 100]
    samples = [trial for trial in every if trial.recipe.generation is not None]
    assert samples and {trial.recipe.generation.generator for trial in samples} == {artifact.weights_digest}
    assert all(trial.recipe.sources[0].recipe == learned[0].recipe for trial in samples)
    # Each was built, looked at and scored, or failed at the gate with a code of its own.
    assert all(trial.macro is not None or trial.failure.code.startswith("sample_") for trial in samples)
    assert any(trial.macro is not None for trial in samples)


def test_a_search_whose_training_was_killed_goes_on_with_it_and_gets_the_same_generator(service, monkeypatch):
    whole = service.finish(service.post(**SEARCH).id)
    job = service.post(**SEARCH)
    append = events.append

    def break_off(session, job_id, kind, payload):
        if kind == generators.PROGRESS and payload["done"] == 60:
            raise RuntimeError("the machine is gone")
        append(session, job_id, kind, payload)

    monkeypatch.setattr(train_generator.events, "append", break_off)
    service.finish(job.id)
    assert service.job(job.id).state is JobState.RUNNING
    monkeypatch.setattr(train_generator.events, "append", append)
    with service.database.transaction() as session:
        session.execute(update(rows).where(rows.c.job_id == job.id).values(not_before=None))
    ended = service.finish(job.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure
    assert kept(service, job.id)[0][0].weights_digest == kept(service, whole.id)[0][0].weights_digest
    # While it waited for another try the search went on with what there was.
    assert len(service.trials(job.id)) == len(service.trials(whole.id))


def test_the_card_is_one_job_that_trains_on_a_single_checkpoint_and_chooses_among_samples(service):
    family = {**OWN, "generator": {"train_after": 0, "preset": "explore-llama", "training": CARD}, "around": None}
    wanted = {**SEARCH, "models": SEARCH["models"][:1], "space": {"families": [family]}, "budget": {"trials": 3}}
    job = service.finish(service.post(**wanted).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    candidates = [trial for trial in service.trials(job.id) if trial.origin != "parent"]
    assert len(candidates) == 3 and all(trial.recipe.generation for trial in candidates)
    assert job.verdict["chance"]["candidates"] == 3


def test_a_generator_learns_from_the_snapshots_of_a_run(service, smoke_nursery):
    from api.submission import check_training

    run = smoke_nursery / "run"
    for step, name in ((100, "arc"), (200, "wino")):
        # A Trainer that was given no tokenizer saves none.
        (run / f"checkpoint-{step}").mkdir(parents=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copy(smoke_nursery / "nursery" / name / file, run / f"checkpoint-{step}")
    fields = {
        "kind": "generator",
        "models": [{"name": "base", "ref": "local:nursery/base"}],
        "trajectory": {"folder": "local:run"},
        "training": QUICK,
    }
    with service.database.reading() as session:
        job = check_training(session, read_job(fields), service.settings)
    assert [model.name for model in job.models] == ["base", "checkpoint-100", "checkpoint-200"]
    with service.database.transaction() as session:
        posted = jobs.create(session, job)[0]
    ended = service.finish(posted.id)
    assert ended.state is JobState.SUCCEEDED, ended.failure
    (artifact,), _ = kept(service, posted.id)
    config = json.loads((service.settings.artifacts / artifact.path / "config.json").read_text())
    assert len(config["sources"]) == 3
