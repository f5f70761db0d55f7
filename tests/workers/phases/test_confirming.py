import random

import pytest

from core.errors import OutOfMemoryError
from core.records import StepKind
from core.states import JobState, StepState, TrialState
from core.statistics import confirm, floor_test, paired_difference
from core.tasks import part_of
from search.finalists import optimism, posterior
from store import events, tasks
from tests.store.makers import put
from tests.workers.phases.conftest import CONTENT, HELDOUT, heldout_outcomes
from workers.phases.study import Search


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
    event = noted(search)
    assert (event["ranked"], event["reference"]) == ([t.id for t in best], search.trials[1].id)
    # The first finalist and every parent; the second once the first is proved.
    read = [step.trial_id for step in search.steps(StepKind.CONFIRM)]
    assert read == [t.id for t in (best[0], *search.trials[:2])]


@pytest.mark.parametrize(("bonus", "read"), [(0.5, 3), (0.0, 1)])
def test_a_finalist_is_read_once_all_before_it_are_proved(new_search, bonus, read):
    search = new_search(racing={"rungs": [24], "finalists": 3})
    search.ability = lambda trial, items: 0.5 if trial.origin == "parent" else 0.5 + bonus - trial.number / 1000
    verdict = search.go().verdict
    ranked = noted(search)["ranked"]
    assert [each["trial_id"] for each in verdict["tested"]] == ranked[:read]
    assert [each["trial_id"] for each in verdict["unread"]] == ranked[read:]
    opened = [step.trial_id for step in search.steps(StepKind.CONFIRM)]
    assert set(opened) & set(ranked) == set(ranked[:read])
    assert len(opened) == 2 + read


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
    tested = [(c.candidate, c.gain) for c in found.comparisons if c.tested]
    assert [(c["trial_id"], c["passed"]) for c in verdict["tested"]] == tested
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
    search.ability = lambda trial, items: 0.5  # Nobody is proved, so that the first finalist is the last to be read.
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
    assert outline(verdict) == [(first, True, True)]
    assert [trial["trial_id"] for trial in verdict["unread"]] == [third]
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
    assert outline(verdict) == []
    assert [trial["trial_id"] for trial in verdict["unread"]] == [second, third]
    assert {second, third}.isdisjoint(step.trial_id for step in three.steps(StepKind.CONFIRM))
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


def test_what_is_claimed_is_the_posterior_mean_as_accuracy_beside_the_raw_macro(new_search):
    search = new_search(racing={"rungs": [24]}, budget={"trials": 6})
    verdict = search.go().verdict
    winner = next(trial for trial in search.trials if trial.id == verdict["winner"]["trial_id"])
    reference = next(trial for trial in search.candidates if trial.label == "uniform linear")
    with search.database.reading() as session:
        space = Search.of(session, search.job).space
    mean, sd = posterior(space, search.trials)[winner.number]
    claimed = verdict["claimed"]
    base = reference.last_heard.score
    overrated = optimism(mean - base, winner.last_heard.variance, 2)
    assert claimed["optimism"] == pytest.approx(100 * overrated)
    assert claimed["points"] == pytest.approx(100 * (mean + reference.macro - base - overrated))
    assert claimed["sd"] == pytest.approx(100 * sd) and claimed["by"] == "posterior mean"
    assert verdict["winner"]["macro_search"] == winner.macro


def test_a_baseline_recommends_and_claims_the_best_score_ever_seen(new_search):
    search = new_search(strategy={"name": "mergekit-evolve"}, budget={"trials": 5})
    verdict = search.go().verdict
    best = max(search.candidates, key=lambda trial: trial.macro)
    assert verdict["winner"]["trial_id"] == best.id
    claimed = {"points": pytest.approx(100 * best.macro), "sd": 0.0, "optimism": 0.0, "by": "best score"}
    assert verdict["claimed"] == claimed


def test_a_candidate_below_a_floor_is_no_finalist_and_the_verdict_says_who_was_skipped(new_search):
    tasks = [{"task": "arc_easy", "floor": 10}]
    search = new_search(objective={"tasks": tasks}, racing={"rungs": [24]})
    # One of four candidates loses 15 points against the parents, one 10 points exactly, two gain.
    worth = {2: 0.35, 3: 0.4, 4: 0.6, 5: 0.7}
    search.ability = lambda trial, items: worth.get(trial.number, 0.5)
    verdict = search.go().verdict
    below = verdict["below_floor"]
    assert [found["number"] for found in below] == [2]
    assert below[0]["tasks"] == [{"task": "arc_easy", "points": pytest.approx(-15), "floor": 10.0}]
    assert {found["number"] for found in [*verdict["tested"], *verdict["unread"]]} == {3, 4, 5}
    (floor,) = verdict["floors"]
    first, reference = (
        next(heldout_outcomes(t, t.macro) for t in search.trials if t.id == verdict[who]["trial_id"])
        for who in ("winner", "reference")
    )
    expected = floor_test(paired_difference(first, reference), 10)
    assert (floor["points"], floor["low"], floor["p"], floor["kept"]) == (
        expected.points,
        expected.low,
        expected.p_one_sided,
        expected.kept,
    )


def test_where_every_candidate_is_below_a_floor_nobody_is_tested(new_search):
    search = new_search(objective={"tasks": [{"task": "arc_easy", "floor": 1}]}, racing={"rungs": [24]})
    search.ability = lambda trial, items: 0.5 if trial.origin == "parent" else 0.25
    verdict = search.go().verdict
    assert verdict["verdict"] == "no gain" and verdict["tested"] == []
    assert verdict["reason"] == "every candidate lost more on a task than its floor allows"
    assert verdict["claimed"] is None and verdict["floors"] == []


def test_the_gap_of_every_parent_between_search_and_held_out_items_is_told(search):
    verdict = search.go().verdict
    parents = [trial for trial in search.trials if trial.origin == "parent"]
    assert [gap["label"] for gap in verdict["contamination"]] == ["a", "b"]
    for gap, parent in zip(verdict["contamination"], parents, strict=True):
        assert gap["gap"] == pytest.approx(100 * (parent.macro - parent.macro_heldout))
        # Both scores of the pretended runner have a standard error of 0.1.
        assert gap["stderr"] == pytest.approx(100 * (0.1**2 + 0.1**2) ** 0.5)


@pytest.fixture
def keeping_back(new_search):
    """A search that keeps back a quarter of the held-out items, with how good candidates are."""

    def make(good):
        search = new_search(racing={"rungs": [24]}, confirmation={"final_split": 0.25}, export={"when": "gain"})
        search.ability = lambda trial, items: 0.25 if trial.origin == "parent" else good - trial.number / 1000
        return search

    return make


def test_what_is_kept_back_is_read_once_for_a_proven_winner_and_the_best_parent(keeping_back):
    search = keeping_back(1.0)
    job = search.go()
    assert job.state is JobState.SUCCEEDED, job.failure
    verdict, readings = job.verdict, search.steps(StepKind.CONFIRM)
    last = [step.trial_id for step in readings if step.payload.get("part") == "final"]
    assert verdict["verdict"] == "gain"
    assert last == [verdict["winner"]["trial_id"], verdict["reference"]["trial_id"]]
    # Of 16 held-out items 12 prove and 4 are kept back.
    assert verdict["tasks"][0]["n"] == HELDOUT - 4
    held, kept = (part_of(CONTENT, part, 0.25) for part in ("heldout", "final"))
    assert sorted(held + kept) == list(CONTENT.side("heldout"))
    ours, theirs = (
        next(heldout_outcomes(t, t.macro) for t in search.trials if t.id == verdict[who]["trial_id"]).select(kept)
        for who in ("winner", "reference")
    )
    final = verdict["final"]
    assert final["items"] == 4
    assert final["points"] == pytest.approx(100 * (sum(ours.correct) - sum(theirs.correct)) / 4)
    assert final["low"] <= final["points"] <= final["high"]
    assert verdict["heldout_reads"] == job.heldout_reads == len(readings)
    assert [step.trial_id for step in search.steps(StepKind.EXPORT)] == [last[0]]


def test_without_a_gain_what_is_kept_back_stays_unread(keeping_back):
    search = keeping_back(0.25)
    verdict = search.go().verdict
    assert verdict["verdict"] == "no gain" and "final" not in verdict
    assert all(not step.payload for step in search.steps(StepKind.CONFIRM))


def test_a_last_look_that_fails_is_recorded_and_the_verdict_stands(keeping_back):
    search = keeping_back(1.0)
    read = search.verbs[StepKind.CONFIRM]

    def run(search, session, step):
        if step.payload:
            raise OutOfMemoryError("no room")
        read(search, session, step)

    search.verbs[StepKind.CONFIRM] = run
    job = search.go()
    assert job.state is JobState.SUCCEEDED, job.failure
    assert job.verdict["verdict"] == "gain"
    assert job.verdict["final"] == {"code": "out_of_memory", "message": "no room"}


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_answers_end_in_no_gain_however_good_the_best_looks(new_search, seed):
    search = new_search(budget={"trials": 10}, racing={"rungs": [24]}, seed=seed)

    def guess(trial, items):
        """Labels that nobody can know: every candidate gets half of them, give or take luck."""
        luck = random.Random(f"{seed} {trial.recipe_digest}")
        return sum(luck.random() < 0.5 for _ in range(24)) / 24

    search.ability = guess
    read = search.verbs[StepKind.CONFIRM]

    def run(search, session, step):
        trial = next(t for t in search.trials if t.id == step.trial_id)
        fresh = random.Random(f"held out {seed} {trial.recipe_digest}")
        put(session, "trials", trial.id, macro=sum(fresh.random() < 0.5 for _ in range(HELDOUT)) / HELDOUT)
        read(search, session, step)
        put(session, "trials", trial.id, macro=trial.macro)

    search.verbs[StepKind.CONFIRM] = run
    job = search.go()
    assert job.verdict["verdict"] == "no gain" and job.verdict["tested"]
    # On search items luck alone looks like a gain.
    assert max(trial.macro for trial in search.candidates) > 0.6
