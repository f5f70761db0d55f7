from contextlib import ExitStack

import pytest

from store import outcomes, trials
from tests.workers.phases.conftest import FINGERPRINT, begun
from workers.phases import history
from workers.phases.study import Search


@pytest.fixture
def live(new_search):
    """A search under way, and what its sampler may know: called again, how things stand then."""
    search, known, open_sessions = begun(new_search(budget={"trials": 8})), history.LiveHistory(), ExitStack()

    def look(rounds):
        for _ in range(rounds):
            search.work()
            search.look()
        session = open_sessions.enter_context(search.database.reading())
        known.renew(session, Search.of(session, search.job), trials.briefs(session, search.job_id))
        return search, known, session

    with open_sessions:
        yield look


def test_a_history_holds_parents_and_candidates_that_ended_with_what_was_heard(live):
    search, known, _ = live(0)
    assert (list(known.parents()), list(known.candidates())) == ([], [])
    search, known, _ = live(9)
    assert [(found.name, found.complete) for found in known.parents()] == [("a", True), ("b", True)]
    ended = [trial for trial in search.candidates if trial.state.final and trial.heard]
    found = list(known.candidates())
    assert [one.number for one in found] == sorted(trial.optuna_number for trial in ended)
    for one, trial in zip(found, sorted(ended, key=lambda trial: trial.optuna_number), strict=True):
        assert one.values == trial.values and one.name is None
        assert (one.heard.score, one.heard.variance) == (trial.last_heard.score, trial.last_heard.variance)
        assert one.complete == (trial.scored_items == 24)


def test_correctness_is_read_along_the_order_once_and_only_when_asked(live, monkeypatch):
    search, known, session = live(9)
    reads, load = [], outcomes.load_many
    monkeypatch.setattr(history.outcomes, "load_many", lambda s, keys: reads.append(list(keys)) or load(s, keys))
    candidate = known.candidates()[-1]
    (answers,) = known.correct(candidate)
    assert len(reads) == 1
    trial = next(trial for trial in search.candidates if trial.optuna_number == candidate.number)
    (order,) = Search.of(session, search.job).orders
    have = outcomes.load(session, trial.recipe_digest, FINGERPRINT)
    right = dict(zip(have.numbers, have.correct, strict=True))
    reads.clear()
    assert list(answers) == [right[number] for number in order[: trial.scored_items]]
    assert list(known.correct(candidate)[0]) == list(answers) and reads == []


def test_a_stopped_candidate_is_read_as_far_as_it_was_scored(live):
    search, known, _ = live(14)
    scored = {trial.optuna_number: trial.scored_items for trial in search.candidates}
    for candidate in known.candidates():
        assert [len(task) for task in known.correct(candidate)] == [scored[candidate.number]]
    assert len(set(scored.values())) > 1
