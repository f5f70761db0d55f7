import pytest

from core.records import Device, StepKind
from core.states import JobState
from store import steps


@pytest.fixture
def exporting(new_search):
    search = new_search(export={"when": "always"})
    while search.job.state is not JobState.EXPORTING:
        search.look()
        assert search.job.state is JobState.EXPORTING or search.work()
    return search


def test_the_job_succeeds_when_its_checkpoint_lies_there(exporting):
    exporting.change(lambda session: steps.ensure_advance(session, exporting.job_id))
    exporting.look()
    assert exporting.job.state is JobState.EXPORTING
    exporting.work()
    exporting.look()
    assert exporting.job.state is JobState.SUCCEEDED


def test_a_checkpoint_that_somebody_asked_for_does_not_end_the_job(exporting):
    winner = exporting.job.verdict["winner"]["trial_id"]
    own = exporting.claim(Device.CPU, StepKind.EXPORT)

    def ask(session):
        steps.add(
            session,
            StepKind.EXPORT,
            Device.CPU,
            job_id=exporting.job_id,
            trial_id=winner,
            payload={"asked": True, "max_shard_bytes": 1024},
        )

    exporting.change(ask)
    exporting.work()
    exporting.look()
    assert exporting.job.state is JobState.EXPORTING
    exporting.change(lambda session: steps.finish(session, own.id, own.fence))
    exporting.change(lambda session: steps.ensure_advance(session, exporting.job_id))
    exporting.look()
    assert exporting.job.state is JobState.SUCCEEDED
