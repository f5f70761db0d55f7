import pytest

from core.records import Device, Failure, StepKind
from core.states import JobState, TrialState
from core.statistics import confirm
from store import events, steps, tasks
from tests.workers.phases.conftest import CONTENT, HELDOUT, heldout_outcomes


def confirming(search):
    """Go on until held-out items are to be read."""
    while search.job.state is not JobState.CONFIRMING:
        search.look()
        assert search.job.state is JobState.CONFIRMING or search.work()
    return search


def noted(search):
    with search.database.reading() as session:
        (event,) = events.of_kind(session, search.job_id, "finalists")
    return event.payload


def test_finalists_are_the_best_on_all_search_items_and_the_reference_is_the_best_parent(new_search):
    search = new_search(racing={"rungs": [24], "finalists": 2})
    ability = search.ability
    search.ability = lambda trial, items: 0.75 if trial.label == "b" else ability(trial, items)
    confirming(search)
    best = sorted(search.candidates, key=lambda trial: (-trial.macro, trial.number))[:2]
    assert noted(search) == {"ranked": [t.id for t in best], "reference": search.trials[1].id}
    # Finalists first, then every parent.
    read = [step.trial_id for step in search.steps(StepKind.CONFIRM)]
    assert read == [t.id for t in (*best, *search.trials[:2])]


@pytest.mark.parametrize("bonus", [0.5, -0.4])
def test_the_verdict_is_that_of_the_statistics_over_held_out_outcomes(new_search, bonus):
    search = new_search(racing={"rungs": [24], "finalists": 2})
    search.ability = lambda trial, items: 0.5 if trial.origin == "parent" else 0.5 + bonus - trial.number / 1000
    job = search.go()
    ranked = [next(t for t in search.trials if t.id == i) for i in noted(search)["ranked"]]
    reference = search.trials[0]
    found = confirm(
        [(t.id, [heldout_outcomes(t, t.macro)]) for t in ranked],
        (reference.id, [heldout_outcomes(reference, 0.5)]),
        ["arc_easy"],
        (1.0,),
    )
    verdict = job.verdict
    assert job.state is JobState.SUCCEEDED
    assert verdict["verdict"] == found.verdict
    assert (verdict["points"], verdict["low"], verdict["high"]) == (found.points, found.low, found.high)
    assert [c["passed"] for c in verdict["tested"]] == [c.gain for c in found.comparisons]
    right = sum(heldout_outcomes(ranked[0], ranked[0].macro).correct)
    assert verdict["tasks"][0]["winner"]["value"] == right / HELDOUT
    expected = 100 * (right - sum(heldout_outcomes(reference, 0.5).correct)) / HELDOUT
    assert verdict["points"] == pytest.approx(expected)


def test_reads_of_held_out_items_are_counted_over_all_jobs(new_search):
    first = new_search()
    first.go()
    reads = 2 + len(first.job.verdict["tested"])
    assert first.job.heldout_reads == first.job.verdict["heldout_reads"] == reads
    second = new_search(seed=1)
    second.go()
    assert second.job.heldout_reads == 2 + len(second.job.verdict["tested"])
    assert second.job.verdict["heldout_reads"] == reads + second.job.heldout_reads
    with first.database.reading() as session:
        assert tasks.heldout_reads(session, CONTENT.content_digest) == reads + second.job.heldout_reads


def test_nothing_is_decided_before_the_last_reading(search):
    confirming(search)
    for _ in range(len(search.steps(StepKind.CONFIRM)) - 1):
        search.work()
        search.look()
        assert search.job.state is JobState.CONFIRMING and search.job.verdict is None
    search.work()
    search.look()
    assert search.job.verdict is not None


def test_a_reading_that_failed_fails_the_job_with_its_code(search):
    confirming(search)
    step = search.claim(Device.CPU, StepKind.CONFIRM)
    failure = Failure(code="bad_task", message="the documents changed")

    def fail(session):
        steps.fail(session, step.id, step.fence, failure, retry=False, max_attempts=2)
        steps.ensure_advance(session, search.job_id)

    search.change(fail)
    assert search.go().state is JobState.FAILED
    assert search.job.failure.code == "bad_task"


def test_a_search_without_a_finished_candidate_ends_with_no_gain_over_the_best_parent(new_search):
    # The parents use up the whole budget.
    search = new_search(budget={"item_evaluations": 10}, export={"when": "always"})
    job = search.go()
    assert job.state is JobState.SUCCEEDED
    assert {trial.state for trial in search.candidates} == {TrialState.CANCELLED}
    assert job.verdict["verdict"] == "no gain" and job.verdict["tested"] == []
    assert job.verdict["winner"]["trial_id"] == job.verdict["reference"]["trial_id"]
    assert job.verdict["points"] == 0.0 and job.verdict["p"] == 1.0


@pytest.mark.parametrize(
    ("when", "bonus", "exported"),
    [("always", -0.4, True), ("gain", -0.4, False), ("gain", 0.5, True)],
)
def test_a_checkpoint_is_made_when_the_job_wants_one(new_search, when, bonus, exported):
    search = new_search(export={"when": when})
    search.ability = lambda trial, items: 0.5 if trial.origin == "parent" else 0.5 + bonus - trial.number / 1000
    job = search.go()
    assert job.state is JobState.SUCCEEDED
    assert (job.verdict["verdict"] == "gain") is (bonus > 0)
    made = [step.trial_id for step in search.steps(StepKind.EXPORT)]
    assert made == ([job.verdict["winner"]["trial_id"]] if exported else [])
