import random

import optuna
import pytest

from core.errors import SpaceError, UnknownStrategyError
from core.space import SearchSpace, SpaceSpec
from search.study import Proposer, storage_url

FAMILIES = [
    {"family": "merge", "methods": ["linear", "task_arithmetic"], "base": "base"},
    {"family": "layout", "presets": ["dus", "idus"], "sources": ["a", "b"]},
]
START = {"family": "merge", "merge.method": "linear", "merge.linear.weight.a": 0.5, "merge.linear.weight.b": 0.5}


def space(families=FAMILIES) -> SearchSpace:
    return SearchSpace(SpaceSpec.model_validate({"families": families}), ["base", "a", "b"], depth=8)


def proposer(storage=None, *, strategy: str = "tpe", seed: int = 7) -> Proposer:
    return Proposer(space(), strategy, storage=storage, study_name="job_1", seed=seed)


def toy(values) -> float:
    return sum(v for v in values.values() if isinstance(v, float)) / 3


def run(study: Proposer, steps: int) -> list[dict]:
    """Ask and tell; every third candidate is stopped, every seventh fails."""
    asked = []
    for _ in range(steps):
        proposal = study.ask()
        asked.append(proposal.values)
        if proposal.number % 7 == 3:
            study.tell_failed(proposal.number)
        elif proposal.number % 3 == 1:
            study.tell_stopped(proposal.number, toy(proposal.values), 150)
        else:
            study.tell_scored(proposal.number, toy(proposal.values), items=900)
    return asked


def test_enqueued_values_come_first_in_order_and_each_once():
    study = proposer()
    layout = {"family": "layout", "layout.preset": "dus", "layout.source": "b", "layout.dus.m": 2}
    assert study.enqueue(START)
    assert study.enqueue(layout)
    assert not study.enqueue(dict(START))
    first, second, third = study.ask(), study.ask(), study.ask()
    assert (first.values, first.enqueued, second.values, second.enqueued) == (START, True, layout, True)
    assert not third.enqueued
    assert not study.enqueue(START)
    assert study.enqueue(START, again=True)
    assert study.ask().values == START


def test_values_outside_the_space_are_not_enqueued():
    with pytest.raises(SpaceError, match="lies outside"):
        proposer().enqueue(START | {"merge.linear.weight.a": 7.0})


def test_every_proposal_fills_the_space():
    study, compiled = proposer(), space()
    for values in run(study, 30):
        assert compiled.read(compiled.fill(values)) == values


def test_telling_twice_is_harmless_and_the_first_word_stands():
    storage = optuna.storages.InMemoryStorage()
    study = proposer(storage)
    scored, stopped, failed = study.ask().number, study.ask().number, study.ask().number
    for value in (0.7, 0.1):
        study.tell_scored(scored, value, items=900)
        study.tell_stopped(stopped, value, 150)
        study.tell_failed(failed)
    study.tell_failed(scored)
    study.tell_scored(failed, 0.9, items=900)
    assert study.told([scored, stopped, failed, 99]) == {scored: "complete", stopped: "pruned", failed: "fail"}
    trials = optuna.load_study(study_name="job_1", storage=storage).trials
    assert trials[scored].value == 0.7
    assert trials[stopped].intermediate_values == {150: 0.7}
    assert trials[failed].values is None


def test_a_score_that_is_not_finite_is_refused():
    study = proposer()
    number = study.ask().number
    with pytest.raises(ValueError, match="must be finite"):
        study.tell_scored(number, float("nan"), items=3)
    assert study.told([number]) == {number: "running"}


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_a_restart_in_mid_study_changes_no_proposal(strategy):
    whole = run(proposer(strategy=strategy), 40)
    storage = optuna.storages.InMemoryStorage()
    parts = [values for _ in range(8) for values in run(proposer(storage, strategy=strategy), 5)]
    assert parts == whole


def test_another_seed_proposes_otherwise():
    assert run(proposer(seed=1), 3) != run(proposer(seed=2), 3)


def test_a_small_discrete_space_is_walked_without_repeats_and_then_says_so():
    small = [{"family": "layout", "presets": ["dus"], "sources": ["a", "b"]}]
    study = Proposer(space(small), "tpe", study_name="job_1", seed=5)
    seen = []
    for _ in range(8):
        proposal = study.ask()
        assert proposal.repeats is None
        seen.append(tuple(proposal.values.items()))
        study.tell_scored(proposal.number, random.Random(str(proposal.values)).random(), items=10)
    assert len(set(seen)) == 8  # two sources, m in 1..4
    assert study.ask().repeats is not None


def test_a_proposal_whose_row_was_never_written_is_closed_and_its_values_come_again():
    study = proposer()
    study.enqueue(START)
    lost, kept = study.ask(), study.ask()
    assert study.abandon([kept.number]) == [lost.number]
    assert study.told([lost.number, kept.number]) == {lost.number: "fail", kept.number: "running"}
    again = study.ask()
    assert (again.values, again.enqueued) == (START, True)
    assert study.abandon([kept.number, again.number]) == []


def test_an_unknown_strategy_suggests_a_known_one():
    with pytest.raises(UnknownStrategyError, match="did you mean 'tpe'"):
        proposer(strategy="tpee")


def test_the_storage_url_names_schema_and_driver_and_keeps_what_is_there():
    assert storage_url("postgresql://u:p%40@h:5432/d") == (
        "postgresql+psycopg://u:p%40@h:5432/d?options=-csearch_path%3Doptuna%20-csynchronous_commit%3Doff"
    )
    kept = storage_url("postgresql+psycopg:///d?host=/tmp/sock&options=-ctimezone%3DUTC")
    assert kept.startswith("postgresql+psycopg:///d?host=/tmp/sock&options=-ctimezone%3DUTC%20-csearch_path")
