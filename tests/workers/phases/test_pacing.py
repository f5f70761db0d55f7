from types import SimpleNamespace

import pytest

from core.states import JobState
from store import events
from workers.phases import pacing, study


def step(trial, **result):
    return SimpleNamespace(trial_id=trial, result=result or None)


PARENT = SimpleNamespace(id="p", origin="parent")


def test_the_cost_of_a_build_is_its_seconds_over_those_of_an_item():
    done = [
        step("p", items=100, build_seconds=50.0, score_seconds=20.0),
        step("a", items=100, build_seconds=9.0, score_seconds=20.0),
        step("b", items=50, build_seconds=3.0, score_seconds=10.0),
        step("c", items=0, build_seconds=4.0, score_seconds=0.0),
        step("d"),
    ]
    # 50 s for 250 items are 0.2 s each; the median build of a, b and c takes 4 s.
    assert pacing.build_cost(done, [PARENT]) == pytest.approx(4.0 / 0.2)


@pytest.mark.parametrize(
    "done", [[], [step("p", items=10, build_seconds=1.0, score_seconds=1.0)], [step("a", items=0)]]
)
def test_without_a_build_or_a_scored_item_it_is_not_known(done):
    assert pacing.build_cost(done, [PARENT]) is None


def settled(search, **took):
    search.took = took
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    with search.database.reading() as session:
        (event,) = events.of_kind(session, search.job_id, study.RUNGS)
        decided = [
            e.id for e in events.of_kind(session, search.job_id, "trial_state") if e.payload["state"] == "stopped"
        ]
    assert all(event.id < id for id in decided)
    return event.payload


def test_rungs_that_a_job_asks_for_stay_whatever_a_build_costs(new_search):
    told = settled(new_search(budget={"trials": 6}), items=10, build_seconds=1000.0, score_seconds=1.0)
    assert told == {"kappa": 10000.0, "rungs": [6, 12, 24], "reason": "as the job asks"}


@pytest.mark.parametrize(
    ("seconds", "rungs"),
    # Of 24 items the default rungs leave one, so smaller defaults stand in: a first rung of 6 pays for builds up to 18.
    [(1.8, [6, 12, 24]), (1.9, [7, 12, 24]), (3.7, [13, 24]), (7.3, [24])],
)
def test_default_rungs_are_adapted_and_told_before_anybody_is_stopped(new_search, monkeypatch, seconds, rungs):
    monkeypatch.setattr("core.rungs.DEFAULT_RUNGS", (6, 12))
    search = new_search(budget={"trials": 8}, racing={"eta": 2})
    told = settled(search, items=10, build_seconds=seconds, score_seconds=1.0)
    assert told["rungs"] == rungs and told["kappa"] == pytest.approx(10 * seconds)
    assert "at least a third of a build" in told["reason"]
    ended = {trial.scored_items for trial in search.candidates}
    assert ended <= set(rungs)


def test_nothing_scored_afresh_leaves_the_rungs_as_they_are(new_search, monkeypatch):
    monkeypatch.setattr("core.rungs.DEFAULT_RUNGS", (6, 12))
    told = settled(new_search(racing={"eta": 3}))
    assert told["kappa"] is None and told["rungs"] == [6, 12, 24] and "not known" in told["reason"]


def test_a_strategy_that_does_not_race_has_one_rung_and_settles_nothing(new_search):
    search = new_search(strategy={"name": "mergekit-evolve"}, budget={"trials": 3})
    search.go()
    assert {trial.target_items for trial in search.trials} == {24}
    with search.database.reading() as session:
        assert events.of_kind(session, search.job_id, study.RUNGS) == []
