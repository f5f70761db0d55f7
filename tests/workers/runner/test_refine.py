from types import SimpleNamespace

import pytest

from core.errors import CancelledError, LeaseLostError
from core.records import StepKind
from core.states import StepState
from store import events, steps
from tests.workers.phases.test_refining import WANTED
from workers.runner import refine
from workers.runner.descent import DRIFTED, Look, Walk

CALM = SimpleNamespace(cancelled=False)


@pytest.fixture
def claimed(service):
    """A refinement in the hands of `runner`."""
    return service.post(**WANTED), service.until(StepKind.REFINE), service.runner()


def progress(service, job_id):
    with service.database.reading() as session:
        return [event.payload for event in events.of_kind(session, job_id, refine.PROGRESS)]


def test_a_refinement_that_lost_its_lease_writes_nothing(service, claimed):
    job, step, bench = claimed
    before = service.job(job.id).items_scored
    with service.database.transaction() as session:
        steps.release(session, "runner")
    with pytest.raises(LeaseLostError):
        refine.run(bench, step, CALM)
    assert service.job(job.id).items_scored == before
    assert progress(service, job.id) == []


def test_a_cancelled_refinement_stops_before_the_next_pass(service, claimed):
    job, step, bench = claimed
    with pytest.raises(CancelledError):
        refine.run(bench, step, SimpleNamespace(cancelled=True))
    assert progress(service, job.id) == []


def test_one_that_begins_anew_gives_the_same_findings(service, claimed):
    job, step, bench = claimed
    ground = refine.ground_of(bench, service.job(job.id), step, CALM)
    pace = refine.pace_of(job.request, step.payload)
    again = refine.findings(ground, refine.walk(ground.bounds, pace, loss=ground.loss, score=ground.score), fine=True)
    refine.run(bench, step, CALM)
    with service.database.reading() as session:
        done = steps.get(session, step.id)
    assert done.state is StepState.DONE
    assert done.result["recipes"] == again["recipes"] != []
    assert [look["score"] for look in done.result["trajectory"]] == [look["score"] for look in again["trajectory"]]


def test_findings_name_each_point_once():
    looks = tuple(Look(step, None, score, 10 * step, 0.0, (0.1 * step,)) for step, score in ((0, 0.1), (3, 0.4)))
    found = Walk(looks, tuple((0.1 * step,) for step in range(4)), DRIFTED)
    ground = SimpleNamespace(
        bounds=[refine_bounds()], axes=[None], values_at=lambda point: {"x": point[0]}, recipe_at=lambda point: None
    )
    told = refine.findings(ground, found, fine=False)
    assert told["values"] == [{"x": 0.3}, {"x": 0.2}]
    assert told["items"] == 30


def refine_bounds():
    return SimpleNamespace(clip=lambda value: value)
