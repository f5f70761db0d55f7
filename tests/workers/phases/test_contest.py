"""The parents' race, in searches whose runners are pretended."""

import pytest

from core.errors import OutOfMemoryError
from core.records import StepKind
from core.states import JobState, TrialState
from store import events
from tests.workers.phases.conftest import begun, steady
from workers.failures import settle
from workers.phases import contest


def parents(search):
    return {trial.label: trial for trial in search.trials if trial.origin == "parent"}


def apart(a: float, b: float):
    """Parents of these scores."""
    return lambda trial, items: {"a": a, "b": b}[trial.label] if trial.origin == "parent" else steady(trial, items)


def told(search):
    with search.database.reading() as session:
        return [event.payload for event in events.of_kind(session, search.job_id, contest.TOLD_APART)]


def raced(search, a, b):
    """The search with parents of these scores, at its end."""
    search.ability = apart(a, b)
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    return search


def test_a_parent_that_is_told_apart_is_read_no_further(new_search):
    search = raced(new_search(), 1.0, 0.0)
    found = parents(search)
    assert (found["a"].state, found["a"].scored_items) == (TrialState.SCORED, 24)
    assert (found["b"].state, found["b"].scored_items) == (TrialState.STOPPED, 6)
    assert told(search) == [{"items": 6, "leader": "a", "behind": ["b"]}]


def test_parents_that_nothing_tells_apart_are_read_in_full(new_search):
    search = raced(new_search(), 0.5, 0.5)
    assert {(t.state, t.scored_items) for t in parents(search).values()} == {(TrialState.SCORED, 24)}
    assert told(search) == []


def test_the_verdict_is_against_the_best_and_every_parent_is_read_on_held_out_items(new_search):
    search = raced(new_search(), 0.0, 1.0)
    assert search.job.verdict["reference"]["label"] == "b"
    assert [gap["label"] for gap in search.job.verdict["contamination"]] == ["a", "b"]
    read = {step.trial_id for step in search.steps(StepKind.CONFIRM)}
    assert {trial.id for trial in parents(search).values()} <= read


def test_the_reference_is_never_out(new_search):
    family = {"family": "layout", "presets": ["dus"], "sources": ["a", "b"]}
    search = raced(new_search(space={"families": [family]}), 0.0, 1.0)
    assert {(t.state, t.scored_items) for t in parents(search).values()} == {(TrialState.SCORED, 24)}


def test_where_the_reference_fails_late_a_parent_that_is_left_takes_its_place(new_search):
    search = begun(new_search(parallel=2))
    search.ability = apart(0.0, 1.0)
    held = []
    work = search.verbs[StepKind.RUN_TRIAL]

    def hold(search, session, step):
        if next(t for t in search.trials if t.id == step.trial_id).label == "uniform linear" and not held:
            held.append(step)
            return
        work(search, session, step)

    search.verbs[StepKind.RUN_TRIAL] = hold
    while not held or parents(search)["a"].state is not TrialState.STOPPED:
        assert search.work()
        search.look()
    settle(search.database, search.settings, held[0], OutOfMemoryError("no room"))
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    with search.database.reading() as session:
        assert events.of_kind(session, search.job_id, "reference")[-1].payload["label"] == "b"


def test_a_spent_budget_ends_the_search_and_not_the_parents_race(new_search):
    search = raced(new_search(budget={"item_evaluations": 13}), 0.5, 0.5)
    assert {(t.state, t.scored_items) for t in parents(search).values()} == {(TrialState.SCORED, 24)}
    assert search.job.verdict["reference"]["label"] == "a"


@pytest.mark.parametrize("strategy", ["mergekit-evolve", "greedy-soup"])
def test_where_candidates_do_not_race_parents_do_not_either(new_search, strategy):
    search = raced(new_search(strategy={"name": strategy}, refine={"enabled": False}), 1.0, 0.0)
    assert {(t.state, t.scored_items) for t in parents(search).values()} == {(TrialState.SCORED, 24)}
