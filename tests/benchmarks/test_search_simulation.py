"""How searches are compared."""

import numpy as np
import pytest

from benchmarks.search_runs import KEEP, Case, checkpoints, search_all
from benchmarks.search_simulation import Curve, _holm, _worse, reached, times_fewer


def test_a_target_is_reached_where_the_curve_stays_near_it():
    spent = np.array([4.0, 8.0, 16.0, 32.0])
    curves = np.array([[3.0, 1.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.5], [3.0, 3.0, 3.0, 3.0], [0.1, 0.1, 0.1, 0.1]])
    found = reached(spent, curves, np.array([1.0, 2.0, 1.0, 1.0]))
    # Half the way down from 2 to 0 between 16 and 32, on a logarithmic scale; exactly at 8; never; from the start.
    assert found == pytest.approx([16 * 2**0.5, 8.0, np.inf, 4.0])


def test_a_hundredth_of_a_point_back_up_does_not_undo_it_but_a_fifth_does():
    spent = np.array([4.0, 8.0, 16.0, 32.0])
    curves = np.array([[1.0, 0.5, 0.51, 0.4], [1.0, 0.5, 0.7, 0.4], [1.0, 0.5, 0.4, 0.7]])
    found = reached(spent, curves, np.full(3, 0.5))
    assert found == pytest.approx([8.0, 16 * 2 ** (2 / 3), np.inf])


def test_times_fewer_counts_the_confirmation():
    curve = Curve(np.array([10.0, 20.0, 40.0]), np.tile([2.0, 1.0, 0.5], (3, 1)))
    target, picks = np.full(3, 1.0), np.zeros((5, 3), dtype=int)
    assert times_fewer(curve, target, picks, whole=3000, paid=0) == pytest.approx((5.0, 5.0))
    assert times_fewer(curve, target, picks, whole=3000, paid=15_000) == pytest.approx((4.0, 4.0))


def test_the_lower_bound_is_the_unlucky_resample():
    regret = np.array([[2.0, 1.0, 0.0], [2.0, 2.0, 0.0]])
    curve = Curve(np.array([10.0, 20.0, 40.0]), regret)
    picks = np.array([[0, 0], [1, 1], [0, 1]])
    point, lower = times_fewer(curve, np.full(2, 1.0), picks, whole=3000, paid=0)
    assert 100 / 40 < lower < point < 100 / 20


def test_holm_rejects_in_order_and_stops():
    assert _holm([0.5, 0.01, 0.02, 0.04]) == [1]
    assert _holm([0.001, 0.012, 0.02, 0.04]) == [0, 1, 2, 3]
    assert _holm([0.9, 0.8]) == []


def test_equal_searches_are_no_evidence_against_one():
    assert _worse(np.zeros(5)) == 1.0
    assert _worse(np.array([1.0, 1.1, 0.9, 1.0])) < 0.001
    assert _worse(-np.array([1.0, 1.1, 0.9, 1.0])) > 0.99


def test_checkpoints_rise_and_hold_the_reported_ones():
    found = checkpoints(50.0, fine=True)
    assert found == sorted(set(found))
    assert {5.0, 10.0, 20.0, 50.0} <= set(found)
    assert max(found) == 50.0
    assert checkpoints(60.0, fine=False) == [5.0, 10.0, 20.0, 50.0, 60.0]


def test_searches_in_other_processes_are_those_of_this_one_and_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(KEEP, str(tmp_path))
    cases = [Case(2, "full random", seed, until=6.0) for seed in (0, 1)]
    first = search_all(cases)
    assert len(list(tmp_path.rglob("*.json"))) == 2
    monkeypatch.setattr("benchmarks.search_runs._computed", lambda missing: pytest.fail("kept") if missing else [])
    assert search_all(cases) == first
    assert first[cases[0]] != first[cases[1]]
