import pytest

from core.jobs import read_job
from core.records import Device, StepKind
from core.states import JobState
from store import jobs, steps
from workers.phases import running


def post(service, **changes):
    fields = {"kind": "generator", "models": [{"name": "base", "ref": "local:nursery/base"}]}
    with service.database.transaction() as session:
        return jobs.create(session, read_job(fields | changes))[0]


def control(service):
    while service.control():
        pass


def test_a_training_is_one_step_that_any_device_may_take_once_its_models_are_inspected(service):
    job = post(service)
    control(service)
    assert service.job(job.id).state is JobState.RUNNING
    ordered = service.steps(job.id)
    assert [step.kind for step in ordered if step.kind is not StepKind.ADVANCE] == [
        StepKind.INSPECT_MODEL,
        StepKind.TRAIN_GENERATOR,
    ]
    assert ordered[-1].device is Device.CPU


def test_a_paused_training_that_ended_meanwhile_succeeds_once_it_is_resumed(service):
    job = post(service)
    control(service)
    with service.database.transaction() as session:
        step = steps.claim(session, owner="w", devices=(Device.CPU,), lease_seconds=60)
        jobs.pause(session, job.id)
    with service.database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        steps.finish(session, step.id, step.fence, {})
        steps.ensure_advance(session, job.id)
    control(service)
    assert service.job(job.id).state is JobState.PAUSED
    with service.database.transaction() as session:
        jobs.resume(session, job.id)
    control(service)
    assert service.job(job.id).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("models", "code"),
    [
        ([{"name": "base", "ref": "nobody"}], "unknown_model"),
        ([{"name": "base", "ref": "local:nursery/nothing"}], "missing_checkpoint"),
    ],
)
def test_a_model_that_cannot_be_had_fails_the_training(service, models, code):
    job = post(service, models=models)
    control(service)
    ended = service.job(job.id)
    assert (ended.state, ended.failure.code) == (JobState.FAILED, code)


def test_a_sample_is_called_by_its_arm():
    from core.recipe import Recipe

    draw = {"generator": "0" * 64, "selectors": ["norms"], "arm": "matched-noise", "rho": 0.01}
    recipe = Recipe.model_validate(
        {"sources": [{"name": "a", "model": "a"}], "merge": {"method": "passthrough"}, "generation": draw}
    )
    assert running._label(recipe) == "matched-noise"
