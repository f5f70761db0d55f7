from types import SimpleNamespace

import pytest

from core.checkpoint import weights_digest
from core.errors import OutOfMemoryError
from core.records import StepKind
from core.states import JobState
from evaluation.scorer import Scorer
from merging.resident import Resident
from store import steps, tasks
from tests.workers.conftest import SMALL
from workers.runner import confirm


def test_the_weights_that_were_proved_are_known_by_their_digest(finished):
    service, job = finished
    nursery = service.settings.model_roots[0] / "nursery"
    for trial in service.trials(job.id):
        if trial.origin == "parent":
            # Saved in its own dtype, a parent is its checkpoint.
            assert trial.weights_digest == weights_digest(nursery / trial.label)
        else:
            assert (trial.weights_digest is not None) is bool(trial.heldout)


def test_held_out_items_are_read_whole_and_not_charged_to_the_budget(finished):
    service, job = finished
    with service.database.reading() as session:
        sides = {
            task: {side: len(tasks.get(session, task, content).side(side)) for side in ("search", "heldout")}
            for task, content in job.contents.items()
        }
    assert sides == {task: {"search": 32, "heldout": 32} for task in sides}
    read = [trial for trial in service.trials(job.id) if trial.heldout]
    assert all([score.n for score in trial.heldout] == [32] * 3 for trial in read)
    assert len(read) == job.heldout_reads == len(service.steps(job.id, StepKind.CONFIRM))
    distinct = {trial.recipe_digest: trial for trial in service.trials(job.id)}
    assert job.items_scored == sum(3 * trial.scored_items for trial in distinct.values())


def read(service, job):
    """Held-out reads of the job, and of its task by whichever job."""
    with service.database.reading() as session:
        (content,) = service.job(job.id).contents.values()
        return service.job(job.id).heldout_reads, tasks.heldout_reads(session, content)


def test_a_reading_is_counted_before_its_first_outcome_and_once_however_often_it_starts_anew(service, monkeypatch):
    job = service.post(**SMALL)
    step, seen, score = service.until(StepKind.CONFIRM), [], Scorer.score

    def stumbles(self, *arguments, on_block, **options):
        def keep(block):
            on_block(block)
            seen.append(read(service, job))
            raise RuntimeError("the worker stumbles")

        return score(self, *arguments, on_block=keep, **options | {"block_items": 4})

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", stumbles)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="stumbles"):
                confirm.run(service.runner(), step, SimpleNamespace(cancelled=False))
    # What was seen of held-out items stays, so the reading that failed counts, and the second start is the same one.
    assert seen == [(1, 1), (1, 1)]
    with service.database.transaction() as session:
        steps.release(session, "runner")
    assert service.finish(job.id).state is JobState.SUCCEEDED
    readings = len(service.steps(job.id, StepKind.CONFIRM))
    assert read(service, job) == (readings, readings)


def test_a_candidate_that_cannot_be_built_has_read_nothing(service, monkeypatch):
    job = service.post(**SMALL)
    step = service.until(StepKind.CONFIRM)

    def fail(*_):
        raise OutOfMemoryError("no room")

    monkeypatch.setattr(Resident, "build", fail)
    with pytest.raises(OutOfMemoryError):
        confirm.run(service.runner(), step, SimpleNamespace(cancelled=False))
    assert read(service, job) == (0, 0)


def test_a_candidate_is_built_once(service, monkeypatch):
    service.post(**SMALL)
    step, built, build = service.until(StepKind.CONFIRM), [], Resident.build

    def counted(self, recipe):
        built.append(recipe.digest())
        return build(self, recipe)

    monkeypatch.setattr(Resident, "build", counted)
    confirm.run(service.runner(), step, SimpleNamespace(cancelled=False))
    assert len(built) == 1


def test_tasks_that_the_search_never_reads_are_read_once_after_the_verdict_and_change_nothing_of_it(service):
    also = {"confirmation": {"also": [{"task": "nursery_hellaswag", "metric": "acc_norm"}]}}
    plain = service.finish(service.post(**SMALL).id)
    job = service.finish(service.post(**SMALL | also).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    (told,) = job.verdict["also"]["tasks"]
    assert (told["task"], told["metric"], told["items"]) == ("nursery_hellaswag", "acc_norm", 32)
    assert told["points"] == pytest.approx(100 * (told["winner"] - told["reference"]))
    assert told["low"] <= told["points"] <= told["high"]
    assert all(job.verdict[name] == plain.verdict[name] for name in ("verdict", "points", "low", "high", "p"))
    # Neither the search nor the proof has read it.
    assert set(job.contents) == {"nursery_arc", "nursery_hellaswag"}
    assert job.items_scored == 0
    assert all(score.task == "nursery_arc" for trial in service.trials(job.id) for score in trial.heldout)
    with service.database.reading() as session:
        assert tasks.heldout_reads(session, job.contents["nursery_hellaswag"]) == 2
    read = [step for step in service.steps(job.id, StepKind.CONFIRM) if step.payload == {"part": "also"}]
    assert [step.trial_id for step in read] == [job.verdict[who]["trial_id"] for who in ("winner", "reference")]


def test_a_task_beyond_that_cannot_be_read_leaves_the_verdict_as_it_is(service, monkeypatch):
    also = {"confirmation": {"also": [{"task": "nursery_hellaswag"}]}}
    job, run = service.post(**SMALL | also), confirm.place

    def fails(bench, step, *rest):
        if step.payload:
            raise OutOfMemoryError("too large")
        return run(bench, step, *rest)

    monkeypatch.setattr(confirm, "place", fails)
    ended = service.finish(job.id)
    assert ended.state is JobState.SUCCEEDED
    assert ended.verdict["also"] == {"code": "out_of_memory", "message": "too large"}
    assert ended.verdict["verdict"] in ("gain", "no gain", "worse")
