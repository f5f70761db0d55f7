import math
import random

import pytest

from search.racing import Decision, Standing, beaten, decide

RUNGS = (50, 200, 1000)


def word(macro: float, rivals: list[float], *, rung: int = 0, eta: int = 3, reference: bool = False) -> Decision:
    standings = [Standing(rung, rival) for rival in rivals]
    return decide(Standing(rung, macro), standings, RUNGS, eta, reference=reference)


def test_the_first_candidates_are_raised_until_a_share_is_defined():
    assert word(0.1, []) is Decision.RAISE
    assert word(0.1, [0.9]) is Decision.RAISE
    assert word(0.1, [0.9, 0.8]) is Decision.STOP
    assert word(0.1, [0.9, 0.8], eta=4) is Decision.RAISE


def test_the_best_third_is_raised_and_the_rest_stopped():
    rivals = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert word(0.45, rivals) is Decision.RAISE  # second of six
    assert word(0.35, rivals) is Decision.STOP  # third of six
    assert word(0.35, rivals, eta=2) is Decision.RAISE


def test_a_tie_at_the_cut_favours_the_candidate():
    assert word(0.5, [0.5, 0.4]) is Decision.RAISE
    assert word(0.5, [0.6, 0.5, 0.5, 0.5]) is Decision.STOP


def test_only_rivals_at_the_same_rung_count():
    rivals = [Standing(1, 0.9), Standing(1, 0.9), Standing(2, 0.9), Standing(0, 0.1), Standing(0, 0.2)]
    assert decide(Standing(0, 0.3), rivals, RUNGS, 3) is Decision.RAISE
    assert decide(Standing(1, 0.3), rivals, RUNGS, 3) is Decision.STOP


def test_the_last_rung_finishes_whatever_the_score():
    assert word(0.0, [0.9] * 9, rung=2) is Decision.FINISH
    assert decide(Standing(0, 0.0), [Standing(0, 0.9)] * 9, (300,), 3) is Decision.FINISH


def test_references_always_run_to_the_last_rung():
    assert word(0.0, [0.9] * 9, reference=True) is Decision.RAISE
    assert word(0.0, [0.9] * 9, reference=True, rung=1) is Decision.RAISE


def test_an_unknown_rung_is_refused():
    with pytest.raises(ValueError, match="rung 3 does not exist"):
        word(0.5, [], rung=3)


def test_arriving_in_random_order_about_a_third_goes_on_and_the_best_always_does():
    for seed in range(20):
        rng, seen, raised = random.Random(seed), [], []
        for _ in range(90):
            macro = rng.random()
            if word(macro, seen) is Decision.RAISE:
                raised.append(macro)
            seen.append(macro)
        assert 20 <= len(raised) <= 42
        assert max(seen) in raised


def test_a_parent_that_is_out_stands_behind_everybody_where_it_was_not_read():
    assert beaten(1, RUNGS) == [Standing(rung, -math.inf) for rung in range(1, len(RUNGS))]
    assert beaten(len(RUNGS), RUNGS) == []
