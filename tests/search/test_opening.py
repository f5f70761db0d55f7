"""A study over a space of which a part opens under way."""

import pytest

from core.space import SearchSpace
from core.space_spec import SpaceSpec
from core.states import TrialState
from search.strategies import strategies
from search.study import Proposer
from tests.search.studies import MERGE, SAMPLES, record, toy

#: Strategies whose candidates are of one kind, or that need what only a running job knows.
ALL = sorted(strategies())


def space(*, closed=(), families=(MERGE, SAMPLES)):
    return SearchSpace(
        SpaceSpec.model_validate({"families": families}), ["base", "a", "b", "c"], depth=8, closed=closed
    )


CLOSED, OPEN = space(closed=("generation",)), space()


def ask(proposer, count):
    found = []
    for _ in range(count):
        proposal = proposer.ask()
        found.append(proposal.values)
        goals = {"score": toy(proposal.values), "seconds": 1.0, "layers": 8.0}
        proposer.tell_scored(proposal.number, toy(proposal.values), items=100, variance=1e-4, goals=goals)
    return found


def proposer(within, strategy, storage=None):
    return Proposer(within, strategy, storage=storage, study_name="s", seed=3)


def test_the_open_part_is_the_beginning_of_the_whole():
    assert [hole.name for hole in CLOSED.holes] == [h.name for h in OPEN.holes if not h.name.startswith("generation.")]
    family, whole = CLOSED.holes[0], OPEN.holes[0]
    assert family.spec.choices == ("merge",)
    assert family.every == whole.spec.choices == ("merge", "generation")
    values = CLOSED.read(CLOSED.uniform()[0])
    assert OPEN.fill(values) == CLOSED.fill(values)


@pytest.mark.parametrize("strategy", ALL)
def test_nothing_is_proposed_of_a_closed_family_and_soon_something_once_it_is_open(strategy):
    before = proposer(CLOSED, strategy)
    first = ask(before, 10)
    assert {values["family"] for values in first} == {"merge"}
    for values in first:
        CLOSED.check(values)
    after = proposer(OPEN, strategy, before._storage)
    later = ask(after, 24)
    for values in later:
        OPEN.check(values)
    assert "generation" in {values["family"] for values in later}
    assert len(after.past()) >= 34


@pytest.mark.parametrize("strategy", ["random", "tpe", "sobol"])
def test_of_several_open_families_all_are_drawn(strategy):
    layout = {"family": "layout", "presets": ["dus"], "sources": ["a", "b", "c"]}
    within = space(closed=("generation",), families=(MERGE, layout, SAMPLES))
    assert {values["family"] for values in ask(proposer(within, strategy), 16)} == {"merge", "layout"}


def test_a_lost_study_is_rebuilt_with_what_was_scored_before_and_after():
    before = proposer(CLOSED, "tpe")
    first = ask(before, 6)
    after = proposer(OPEN, "tpe", before._storage)
    values = first + ask(after, 12)
    rows = [
        record(n, optuna_number=n, values=found, macro=toy(found), state=TrialState.SCORED)
        for n, found in enumerate(values)
    ]
    again = proposer(OPEN, "tpe")
    again.recover(rows)
    assert [past.values for past in again.past()] == values
    assert again.ask().values == after.ask().values
