import pytest

from core.jobs import SearchJob
from core.space import SearchSpace
from store import events, jobs
from tests.workers.phases.conftest import REQUEST
from workers.phases import proposers, running
from workers.phases.study import strategy_of


@pytest.fixture
def opened(search, monkeypatch):
    """The search once it runs, and every proposer that is opened from then on."""
    while not search.candidates:
        search.look()
        assert search.candidates or search.work()
    made, real = [], proposers._open

    def remember(*arguments):
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr(proposers, "_open", remember)
    return search, made


def of(search):
    with search.database.transaction() as session:
        job = jobs.get(session, search.job_id)
        return proposers.of(session, search.settings, job, running.Search.of(session, job).space)


def test_a_study_is_opened_once_and_kept(opened):
    search, made = opened
    assert of(search) is of(search)
    assert not made


def test_a_forgotten_study_is_opened_anew_and_its_connections_are_given_back(opened):
    search, made = opened
    first = of(search)
    closed = []
    first.close = lambda: closed.append(True)
    proposers.forget(search.job_id)
    assert closed == [True]
    again = of(search)
    assert again is not first and made == [again]
    with search.database.reading() as session:
        assert len(events.of_kind(session, search.job_id, "strategy")) == 1


def test_only_so_many_studies_are_kept(opened, monkeypatch):
    search, _ = opened
    first = of(search)
    closed = []
    first.close = lambda: closed.append(True)
    monkeypatch.setattr(proposers, "_KEPT", 1)
    monkeypatch.setattr(proposers, "_open", lambda *_: "another")
    with search.database.transaction() as session:
        other = jobs.create(session, SearchJob.model_validate(REQUEST))[0]
        assert proposers.of(session, search.settings, other, None) == "another"
    assert closed == [True] and set(proposers._warm) == {other.id}
    proposers._warm.clear()


def test_the_strategy_asked_for_is_taken_and_auto_says_why():
    def strategy(name):
        request = SearchJob.model_validate(REQUEST | {"strategy": {"name": name}})
        space = SearchSpace(request.space, ["a", "b"], depth=4, save_dtype="float32", seed=0)
        return strategy_of(request, space)

    assert strategy("random") == ("random", "asked for")
    name, reason = strategy("auto")
    assert name != "auto" and reason and reason != "asked for"
