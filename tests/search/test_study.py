import random

import optuna
import psycopg
import pytest
from studies import record

from core.errors import SpaceError, UnknownStrategyError
from core.records import HeardScore
from core.space import SearchSpace
from core.space_spec import SpaceSpec
from core.states import TrialState
from search import past
from search.study import Proposer, storage_url

FAMILIES = [
    {"family": "merge", "methods": ["linear", "task_arithmetic"], "base": "base"},
    {"family": "layout", "presets": ["dus", "idus"], "sources": ["a", "b"]},
]
START = {"family": "merge", "merge.method": "linear", "merge.linear.weight.a": 0.5, "merge.linear.weight.b": 0.5}


def small_space(families=FAMILIES) -> SearchSpace:
    return SearchSpace(SpaceSpec.model_validate({"families": families}), ["base", "a", "b"], depth=8)


def proposer(storage=None, *, strategy: str = "tpe", seed: int = 7) -> Proposer:
    return Proposer(small_space(), strategy, storage=storage, study_name="job_1", seed=seed)


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
    study, compiled = proposer(), small_space()
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
    study = Proposer(small_space(small), "tpe", study_name="job_1", seed=5)
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


def test_whole_numbers_are_the_same_values_as_floats():
    study = proposer()
    assert study.enqueue(START | {"merge.linear.weight.a": 1})
    assert not study.enqueue(START | {"merge.linear.weight.a": 1.0})
    assert isinstance(study.ask().values["merge.linear.weight.a"], float)


def test_a_number_that_the_study_has_not_is_refused():
    with pytest.raises(ValueError, match="no trial 5"):
        proposer().tell_failed(5)


def rows_of(study: Proposer, steps: int) -> list:
    """Rows as the store would hold them: scored, stopped and failed ones, and two still under way; parents, too."""
    rows = [record(0, origin="parent", macro=0.4)]
    for step in range(steps):
        proposal = study.ask()
        state = (TrialState.SCORED, TrialState.STOPPED, TrialState.FAILED)[step % 3]
        state = TrialState.RUNNING if step >= steps - 2 else state
        rows.append(
            record(
                step + 1,
                state=state,
                optuna_number=proposal.number,
                origin="enqueued" if proposal.enqueued else "proposed",
                values=proposal.values,
                scored_items=50 if state is TrialState.STOPPED else 300,
                macro=toy(proposal.values) if state in (TrialState.SCORED, TrialState.STOPPED) else None,
            )
        )
        study.tell(rows[-1])
    return rows


def test_a_lost_study_is_rebuilt_from_rows_and_goes_on_as_if_nothing_had_happened():
    study = proposer()
    study.enqueue(START)
    rows = rows_of(study, 24)
    rebuilt = proposer()
    assert rebuilt.rebuild(reversed(rows)) == 24
    numbers = [row.optuna_number for row in rows[1:]]
    assert rebuilt.told(numbers) == study.told(numbers)
    assert [rebuilt.ask() for _ in range(3)] == [study.ask() for _ in range(3)]
    assert not rebuilt.enqueue(START)


def test_numbers_that_no_row_has_stay_taken():
    rows = [row for row in rows_of(proposer(), 9) if row.optuna_number != 4]
    rebuilt = proposer()
    rebuilt.rebuild(rows)
    assert rebuilt.told([4]) == {4: "fail"}
    assert rebuilt.ask().number == 9


def test_only_an_empty_study_is_rebuilt():
    study = proposer()
    rows = rows_of(study, 3)
    with pytest.raises(ValueError, match="is not empty"):
        study.rebuild(rows)


def test_recovery_tells_what_was_not_heard_closes_what_has_no_row_and_is_idempotent():
    study = proposer()
    study.enqueue(START)
    unheard, lost = study.ask(), study.ask()
    row = record(1, optuna_number=unheard.number, values=unheard.values, macro=0.8, scored_items=300)
    for _ in range(2):
        study.recover([record(0, origin="parent", macro=0.4), row])
        assert study.told([0, 1]) == {unheard.number: "complete", lost.number: "fail"}


def test_recovery_rebuilds_a_lost_study():
    rows = rows_of(proposer(), 6)
    fresh = proposer()
    fresh.recover(rows)
    assert list(fresh.told(range(6)).values()) == ["complete", "pruned", "fail", "complete", "running", "running"]


def test_a_scored_row_without_a_macro_is_refused():
    study = proposer()
    with pytest.raises(ValueError, match="has no macro"):
        study.tell(record(1, optuna_number=study.ask().number, values={}, macro=None))


def test_on_the_real_database_a_study_survives_restarts_and_proposes_what_memory_does(database_url):
    url = storage_url(database_url)
    whole, parts = run(proposer(), 12), []
    for _ in range(2):
        study = proposer(url)
        parts += run(study, 6)
        study.close()
    assert parts == whole
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        schemas = connection.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'trials' ORDER BY 1"
        ).fetchall()
        names = connection.execute("SELECT study_name FROM optuna.studies").fetchall()
        trials = connection.execute("SELECT count(*) FROM optuna.trials").fetchone()
    assert ("optuna",) in schemas
    assert (names, trials) == ([("job_1",)], (12,))


def test_a_row_is_told_with_its_variance_and_a_rebuilt_study_reads_the_same():
    compiled = small_space()

    def heard(score: float, variance: float, items: int) -> tuple[HeardScore, ...]:
        return (HeardScore(items=items, score=score, variance=variance, n=items, tasks=(score,)),)

    first = proposer()
    asked = [first.ask() for _ in range(4)]
    states = [
        {"macro": 0.5, "heard": heard(0.1 + 0.2, 1e-17, 300)},
        {"macro": 0.9, "heard": heard(0.61, 2e-3, 50), "scored_items": 50, "state": TrialState.STOPPED},
        {"state": TrialState.FAILED},
        {"macro": 0.4},  # From before scores were heard.
    ]
    rows = [
        record(n, optuna_number=p.number, values=p.values, **fields)
        for n, (p, fields) in enumerate(zip(asked, states, strict=True))
    ]
    for row in rows:
        first.tell(row)
    rebuilt = Proposer(compiled, "tpe", study_name="job_1", seed=7)
    rebuilt.rebuild(rows)
    told = [(p.number, p.state, p.score, p.variance, p.items) for p in first.past()]
    assert told == [
        (0, "complete", 0.1 + 0.2, 1e-17, 300),
        (1, "stopped", 0.61, 2e-3, 50),
        (2, "failed", None, 0.0, 0),
        (3, "complete", 0.4, 0.0, 300),
    ]
    assert rebuilt.past() == first.past()


def test_what_a_candidate_was_not_timed_for_is_not_traded():
    proposer = Proposer(
        small_space(), "nsga2", study_name="job_1", seed=3, params={"goals": "tasks+seconds"}, tasks=("t",)
    )
    timed, known = proposer.ask(), proposer.ask()
    heard = (HeardScore(items=300, score=0.6, variance=0.0, n=300, tasks=(0.6,)),)
    for proposal, fresh in ((timed, 45), (known, 0)):
        provenance = {"score_seconds": 9.0, "fresh_items": fresh}
        values = {"optuna_number": proposal.number, "values": proposal.values, "heard": heard, "macro": 0.6}
        proposer.tell(record(proposal.number, provenance=provenance, **values))
    first, second = past.past(proposer._study)
    assert (first.state, first.goals) == ("complete", (0.6, 0.2))
    assert (second.state, second.goals) == ("failed", ())
