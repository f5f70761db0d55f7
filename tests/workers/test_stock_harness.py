"""The exported winner, opened from its folder by the stock harness, answers as the stored outcomes say."""

import pytest

from core.states import JobState
from store import artifacts, outcomes, tasks, trials

#: Choices closer than this may change order with the packing of a batch.
CLOSE = 1e-4


@pytest.mark.parametrize("save_dtype", ["float32", "bfloat16"])
def test_the_stock_harness_finds_the_same_outcome_item_by_item(service, save_dtype):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    job = service.finish(service.post(budget={"trials": 2}, export={"save_dtype": save_dtype, "when": "always"}).id)
    assert job.state is JobState.SUCCEEDED, job.failure
    with service.database.reading() as session:
        (kept,) = artifacts.of_job(session, job.id)
        winner = trials.get(session, kept.trial_id)
        stored = {
            spec.task: (
                outcomes.load(session, winner.recipe_digest, job.fingerprints[spec.task]),
                tasks.get(session, spec.task, job.contents[spec.task]),
                spec.metric_name,
            )
            for spec in job.request.objective.tasks
        }
    folder = service.settings.artifacts / kept.path
    model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8)
    manager = TaskManager(include_path=str(service.settings.task_folders[0]), include_defaults=False)
    found = simple_evaluate(model, tasks=list(stored), task_manager=manager, log_samples=True, bootstrap_iters=0)
    for task, (known, content, metric) in stored.items():
        # The stock run scores the test split, whose documents follow the search split's in canonical order.
        first = len(content.side("search"))
        ours = {number: (right, margin) for number, right, margin in known.items()}
        samples = found["samples"][task]
        assert len(samples) == len(content.side("heldout"))
        odd = [s["doc_id"] for s in samples if int(s[metric]) != ours[first + s["doc_id"]][0]]
        assert all(abs(ours[first + doc][1]) < CLOSE for doc in odd), (task, odd)
        assert len(odd) <= 2
