import pytest

from core.errors import SamplePerplexityError
from core.jobs import read_job
from core.records import StepKind
from core.states import JobState, TrialState
from store import artifacts, events, generators, jobs
from tests.workers.conftest import ALWAYS, SMALL
from workers.runner import gate

TRAINING = {"chunk": 32, "width": 32, "blocks": 1, "batch": 16, "autoencoder_steps": 20, "denoiser_steps": 20}


@pytest.fixture
def generator(service):
    """An artifact of the service: trained on the base alone."""
    fields = {"kind": "generator", "models": [{"name": "base", "ref": "local:nursery/base"}], "training": TRAINING}
    with service.database.transaction() as session:
        job = jobs.create(session, read_job(fields))[0]
    assert service.finish(job.id).state is JobState.SUCCEEDED
    with service.database.reading() as session:
        return artifacts.of_job(session, job.id)[0]


def search(service, generator, trials=3, export=None, **family):
    """A search whose generator is named by the artifact's id, as a user names it."""
    fields = SMALL | {"budget": {"trials": trials}, "export": export or ALWAYS, "strategy": {"name": "random"}}
    wanted = {"family": "generation", "generator": generator.id, "base": "base", **family}
    with service.database.transaction() as session:
        posted = read_job(fields | {"space": {"families": [wanted]}})
        return jobs.create(session, generators.pinned(session, posted))[0]


def passed_of(service, job):
    with service.database.reading() as session:
        return [event.payload for event in events.of_kind(session, job.id, gate.PASSED)]


def test_a_search_samples_scores_proves_and_exports_what_a_generator_gives(service, generator):
    job = service.finish(search(service, generator).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    assert job.request.space.families[0].generator == generator.weights_digest
    samples = [trial for trial in service.trials(job.id) if trial.origin != "parent"]
    scored = [trial for trial in samples if trial.state is TrialState.SCORED]
    assert scored and all(trial.resolved.generation.generator == generator.weights_digest for trial in scored)
    passed = passed_of(service, job)
    assert {trial.recipe_digest for trial in scored} <= {each["recipe"] for each in passed}
    assert len({each["digest"] for each in passed}) == len(passed)
    assert all(0.5 < each["perplexity"] <= 1.5 and each["changed"] > 0 for each in passed)
    chance = job.verdict["chance"]
    assert chance["candidates"] == len([trial for trial in samples if trial.macro is not None])
    assert chance["points"] >= 0 and 0 <= chance["correlation"] <= 1
    with service.database.reading() as session:
        (checkpoint,) = artifacts.of_job(session, job.id)
    winner = next(trial for trial in samples if trial.id == job.verdict["winner"]["trial_id"])
    assert checkpoint.weights_digest == winner.weights_digest


@pytest.mark.parametrize(
    ("family", "code"),
    [
        ({"radius": False, "params": {"strength": 0.6, "blend": 1e-9}}, "sample_unchanged"),
        ({"params": {"rho": 0.9}, "arms": ["matched-noise"]}, "sample_norm"),
    ],
)
def test_a_refused_sample_is_a_failed_trial_with_its_own_code_and_the_search_goes_on(service, generator, family, code):
    job = service.finish(search(service, generator, export={"save_dtype": "bfloat16"}, **family).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    failed = [trial for trial in service.trials(job.id) if trial.state is TrialState.FAILED]
    assert failed and {trial.failure.code for trial in failed} == {code}
    assert passed_of(service, job) == []


def test_a_sample_that_no_longer_speaks_is_refused_by_its_perplexity(service, generator, monkeypatch):
    taken = iter([10.0, 16.0, 14.0, 16.0, 16.0, 16.0])
    monkeypatch.setattr(gate, "perplexity", lambda *_: next(taken))
    job = service.finish(search(service, generator, params={"rho": 0.02}).id)
    failed = [trial for trial in service.trials(job.id) if trial.state is TrialState.FAILED]
    assert {trial.failure.code for trial in failed} == {SamplePerplexityError.code}
    assert [each["perplexity"] for each in passed_of(service, job)] == [1.4]


def test_a_generator_of_another_base_fails_the_job_before_anything_is_scored(service, generator):
    job = service.finish(search(service, generator, base="arc").id)
    assert (job.state, job.failure.code) == (JobState.FAILED, "generator_misfit")
    assert service.steps(job.id, StepKind.RUN_TRIAL) == []
