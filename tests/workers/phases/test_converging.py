"""A search that ends as nothing much is expected of going on."""

import pytest

from core.jobs import Budget
from core.states import JobState
from store import events, jobs
from workers.phases import converging


@pytest.fixture
def promise(monkeypatch):
    """What the surrogate says, in shares; told by the number of trials it was asked about."""
    said = {"value": 1.0, "asked": []}

    def expected(space, pasts):
        said["asked"].append(len(pasts))
        return said["value"]

    monkeypatch.setattr(converging, "expected_improvement", expected)
    monkeypatch.setattr(converging, "SCORED", 1)
    monkeypatch.setattr(converging, "HEARD", 4)
    return said


def converged(search):
    with search.database.reading() as session:
        return [event.payload for event in events.of_kind(session, search.job_id, "converged")]


def test_a_search_ends_once_less_is_expected_than_the_budget_asks_for(new_search, promise):
    promise["value"] = 0.0009
    search = new_search(budget={"trials": 40, "expected_improvement": 0.1})
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    assert len(search.candidates) < 12
    (found,) = converged(search)
    assert found["expected_improvement"] == pytest.approx(0.09) and found["limit"] == 0.1
    assert found["heard"] >= 4 and found["scored"] >= 1


def test_it_goes_on_while_more_is_expected_and_asks_only_when_there_is_news(new_search, promise):
    search = new_search(budget={"trials": 8, "expected_improvement": 0.1})
    search.go()
    assert len(search.candidates) == 8 and not converged(search)
    assert promise["asked"] and len(promise["asked"]) <= 8


def test_without_the_limit_nobody_asks(new_search, promise):
    search = new_search(budget={"trials": 6})
    search.go()
    assert not promise["asked"]


def test_an_extension_to_a_smaller_improvement_goes_on(new_search, promise):
    search = new_search(budget={"trials": 12, "expected_improvement": 0.1})
    while not converged(search):
        search.look()
        promise["value"] = 0.0009
        assert search.work()
    asked = len(search.candidates)
    search.change(lambda s: jobs.extend(s, search.job_id, Budget(expected_improvement=0.05)))
    search.go()
    assert len(search.candidates) == 12 > asked


def test_the_real_surrogate_is_asked_in_points(new_search, monkeypatch):
    monkeypatch.setattr(converging, "SCORED", 1)
    monkeypatch.setattr(converging, "HEARD", 4)
    search = new_search(budget={"trials": 10, "expected_improvement": 100.0})
    assert search.go().state is JobState.SUCCEEDED, search.job.failure
    (found,) = converged(search)
    assert 0.0 <= found["expected_improvement"] < 100.0
