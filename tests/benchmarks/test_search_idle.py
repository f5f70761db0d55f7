"""The clock that measures whether devices wait for proposals."""

import itertools

import pytest

from benchmarks.search_idle import WORKERS, Clock


@pytest.fixture(autouse=True)
def _a_strategy_that_takes_no_time(monkeypatch):
    monkeypatch.setattr("benchmarks.search_idle.choose", lambda *_: ("random", ""))


def test_workers_that_score_for_long_never_wait_and_those_that_take_no_time_always_do():
    patient, hasty = Clock(None, trials=20, seconds=(60.0, 90.0)), Clock(None, trials=20, seconds=(1e-6, 2e-6))
    assert patient.run() == 0.0
    assert hasty.run() > 0.9
    assert len(patient.proposer.past()) == 20
    assert all(trial.state in ("complete", "stopped") for trial in patient.proposer.past())


def test_waiting_is_what_the_proposer_takes_beyond_its_lead():
    # Every proposal takes one second; a candidate takes 3: four workers use one every 3/4 s, so each spends a quarter
    # of its time waiting once the lead is used up.
    ticks = itertools.count()
    clock = Clock(None, trials=120, seconds=(3.0, 3.0), timer=lambda: float(next(ticks)))
    assert clock.run() == pytest.approx(0.25, abs=0.03)
    assert len(clock.taken) == 120
    assert WORKERS == 4
