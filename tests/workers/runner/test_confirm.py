from core.checkpoint import weights_digest
from core.records import StepKind
from store import tasks


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
