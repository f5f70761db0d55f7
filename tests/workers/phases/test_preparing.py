import pytest

from core.records import Device, Failure, StepKind
from core.states import JobState, StepState
from store import models, steps
from tests.core.families import model
from tests.workers.phases.conftest import CONTENT

LOCAL = {"models": [{"name": "a", "ref": "local:herd/a"}, {"name": "b", "ref": "b"}]}


def inspect(search, failure=None):
    """Answer the next inspection of a model, as a control worker would."""
    step = search.claim(Device.NONE, StepKind.INSPECT_MODEL)

    def answer(session):
        if failure is not None:
            steps.fail(session, step.id, step.fence, failure, retry=False, max_attempts=2)
        else:
            parent = model("a")
            models.mark_ready(session, step.payload["model_id"], parent.header, parent.weights_digest)
            steps.finish(session, step.id, step.fence)
        steps.ensure_advance(session, search.job_id)

    search.change(answer)


def ordered(search):
    kinds = (StepKind.INSPECT_MODEL, StepKind.INSPECT_TASK)
    return [step.payload.get("ref") or step.payload["task"] for step in search.steps(*kinds)]


def test_what_is_known_is_not_inspected_again(search):
    search.look()
    assert search.job.state is JobState.PREPARING
    assert ordered(search) == ["arc_easy"]


def test_a_model_named_by_its_place_is_registered_and_inspected_once_per_job(new_search):
    search = new_search(models=[*LOCAL["models"], {"name": "c", "ref": "local:herd/a"}])
    search.look()
    assert ordered(search) == ["local:herd/a", "arc_easy"]
    with search.database.reading() as session:
        found = models.by_name(session, "local:herd/a")
    assert (found.ref, found.state) == ("local:herd/a", "registered")


def test_the_search_begins_when_the_last_inspection_is_done(new_search):
    search = new_search(**LOCAL)
    search.look()
    search.work()
    search.look()
    assert search.job.state is JobState.PREPARING and not search.trials
    inspect(search)
    search.look()
    assert search.job.state is JobState.RUNNING and search.trials
    assert search.job.contents == {"arc_easy": CONTENT.content_digest}


def test_a_failed_inspection_fails_the_job_with_its_code(new_search):
    search = new_search(**LOCAL)
    search.look()
    inspect(search, Failure(code="truncated_checkpoint", message="the file ends early", where="model.safetensors"))
    search.look()
    assert search.job.state is JobState.FAILED
    assert search.job.failure.code == "truncated_checkpoint" and search.job.failure.where == "model.safetensors"
    assert {step.state for step in search.steps(StepKind.INSPECT_TASK)} == {StepState.CANCELLED}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"vocab": 33}, "parents_do_not_fit"),
        ({"layers": 5}, "parents_do_not_fit"),
        ({"width": 9}, "parents_do_not_fit"),
    ],
)
def test_parents_that_do_not_fit_fail_the_job_before_any_trial(new_search, change, code):
    search = new_search(models=[{"name": "a", "ref": "a"}, {"name": "odd", "ref": "odd"}])

    def register(session):
        odd = model("odd", **change)
        models.mark_ready(session, models.register(session, "odd", "hub:herd/odd@0").id, odd.header, odd.weights_digest)

    search.change(register)
    job = search.go()
    assert job.state is JobState.FAILED and job.failure.code == code
    assert not search.trials


def test_parents_of_other_depths_may_be_restacked(new_search):
    family = {"family": "layout", "presets": ["dus"], "sources": ["a"]}
    search = new_search(
        models=[{"name": "a", "ref": "a"}, {"name": "deep", "ref": "deep"}], space={"families": [family]}
    )

    def register(session):
        deep = model("deep", layers=6)
        models.mark_ready(
            session, models.register(session, "deep", "hub:herd/deep@0").id, deep.header, deep.weights_digest
        )

    search.change(register)
    assert search.go().state is JobState.SUCCEEDED, search.job.failure


def test_an_unregistered_name_fails_the_job(new_search):
    search = new_search(models=[{"name": "a", "ref": "a"}, {"name": "b", "ref": "nobody"}])
    search.look()
    assert search.job.state is JobState.FAILED and search.job.failure.code == "unknown_model"
    assert "nobody" in search.job.failure.message
    assert not search.steps(StepKind.INSPECT_TASK)
