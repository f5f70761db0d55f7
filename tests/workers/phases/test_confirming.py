import pytest

from core.errors import OutOfMemoryError
from core.records import StepKind
from core.states import JobState, StepState, TrialState
from core.statistics import confirm
from store import events, tasks
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


def unreadable(search, *which):
    """Have the runner fail on the held-out reading of these trials, for good."""
    read = search.verbs[StepKind.CONFIRM]

    def run(search, session, step):
        if step.trial_id in which:
            raise OutOfMemoryError("no room")
        read(search, session, step)

    search.verbs[StepKind.CONFIRM] = run
    return search.go()


@pytest.fixture
def three(new_search):
    """A search about to read three finalists, each of which would prove a gain."""
    search = new_search(racing={"rungs": [24], "finalists": 3}, export={"when": "gain"})
    search.ability = lambda trial, items: 0.25 if trial.origin == "parent" else 1.0 - trial.number / 1000
    return confirming(search)


def outline(verdict):
    return [(c["trial_id"], c["tested"], c["passed"]) for c in verdict["tested"]]


def test_a_proof_stands_when_a_later_finalist_could_not_be_read(three):
    first, second, third = noted(three)["ranked"]
    job = unreadable(three, second)
    assert job.state is JobState.SUCCEEDED, job.failure
    verdict = job.verdict
    assert verdict["verdict"] == "gain" and verdict["winner"]["trial_id"] == first and verdict["p"] < 0.025
    # What cannot be tested is not rejected, and ends the sequence.
    assert outline(verdict) == [(first, True, True), (third, False, False)]
    number = next(trial.number for trial in three.trials if trial.id == second)
    assert verdict["failed"] == [
        {"trial_id": second, "number": number, "code": "out_of_memory", "message": "no room"},
    ]
    assert verdict["reason"] is None
    assert [step.trial_id for step in three.steps(StepKind.EXPORT)] == [first]


def test_without_the_first_ranked_there_is_no_gain_however_good_the_second_is(three):
    first, second, third = noted(three)["ranked"]
    job = unreadable(three, first)
    assert job.state is JobState.SUCCEEDED, job.failure
    verdict = job.verdict
    assert verdict["verdict"] == "no gain" and verdict["winner"] == verdict["reference"]
    assert (verdict["points"], verdict["low"], verdict["high"], verdict["p"]) == (0.0, 0.0, 0.0, 1.0)
    assert outline(verdict) == [(second, False, False), (third, False, False)]
    assert "could not be read: no room" in verdict["reason"]
    assert not three.steps(StepKind.EXPORT)


def test_a_parent_that_could_not_be_read_is_recorded_and_the_proof_stands(three):
    parent = three.trials[1]
    assert noted(three)["reference"] != parent.id
    verdict = unreadable(three, parent.id).verdict
    assert verdict["verdict"] == "gain" and [passed for *_, passed in outline(verdict)] == [True] * 3
    assert [failed["trial_id"] for failed in verdict["failed"]] == [parent.id]


def test_without_the_reference_there_is_no_verdict_and_the_job_fails_with_its_code(three):
    job = unreadable(three, noted(three)["reference"])
    assert (job.state, job.failure.code, job.verdict) == (JobState.FAILED, "out_of_memory", None)
    # The others were read first: nothing that was begun is thrown away.
    assert {step.state for step in three.steps(StepKind.CONFIRM)} == {StepState.DONE, StepState.FAILED}


def test_a_search_without_a_finished_candidate_ends_with_no_gain_over_the_best_parent(new_search):
    # The parents use up the whole budget.
    search = new_search(budget={"item_evaluations": 10}, export={"when": "always"})
    job = search.go()
    assert job.state is JobState.SUCCEEDED
    assert {trial.state for trial in search.candidates} == {TrialState.CANCELLED}
    assert job.verdict["verdict"] == "no gain" and job.verdict["tested"] == []
    assert job.verdict["winner"]["trial_id"] == job.verdict["reference"]["trial_id"]
    assert job.verdict["points"] == 0.0 and job.verdict["p"] == 1.0
    assert job.verdict["reason"] == "no candidate was scored in full" and job.verdict["failed"] == []


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
