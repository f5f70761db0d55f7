import math
import random
from statistics import NormalDist, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from core.outcomes import Outcomes
from core.statistics import (
    PairedDifference,
    confirm,
    fixed_sequence,
    floor_test,
    macro_difference,
    mcnemar_exact,
    mean,
    paired_difference,
    shown_p,
    stderr,
)


def outcomes(correct: list[int], first: int = 0) -> Outcomes:
    return Outcomes.of((first + i, right, 0.0) for i, right in enumerate(correct))


def test_the_standard_error_takes_the_sample_deviation_over_root_n():
    for correct in ([0, 1], [1, 1, 0, 1, 0], [1] * 30 + [0] * 70):
        assert stderr(correct) == pytest.approx(stdev(correct) / math.sqrt(len(correct)), abs=1e-15)
        assert mean(correct) == sum(correct) / len(correct)


def test_one_item_has_the_largest_standard_error_and_no_item_has_none():
    assert stderr([1]) == stderr([0]) == 0.5
    with pytest.raises(ValueError, match="at least one item"):
        mean([])


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test_on_the_disagreements(b, c):
    found = mcnemar_exact(b, c)
    if b + c == 0:
        assert (found.one_sided, found.two_sided) == (1.0, 1.0)
        return
    assert found.one_sided == pytest.approx(binomtest(b, b + c, alternative="greater").pvalue, rel=1e-12)
    assert found.two_sided == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-12)


def test_mcnemar_of_seven_against_one_is_nine_in_256():
    assert mcnemar_exact(7, 1).one_sided == 9 / 256
    assert mcnemar_exact(7, 1).two_sided == 18 / 256
    assert mcnemar_exact(5000, 5000).two_sided == 1.0
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar_exact(-1, 2)


def test_a_paired_difference_counts_only_common_items():
    ours = Outcomes.of([(0, 1, 0.0), (1, 1, 0.0), (2, 0, 0.0), (3, 1, 0.0), (9, 0, 0.0)])
    theirs = Outcomes.of([(1, 0, 0.0), (2, 1, 0.0), (3, 0, 0.0), (4, 1, 0.0), (9, 0, 0.0)])
    found = paired_difference(ours, theirs)
    # Differences +1, -1, +1, 0: mean 1/4, squares sum to 3, sample variance (3 - 4/16) / 3 = 11/12.
    assert (found.n, found.b, found.c, found.mean) == (4, 2, 1, 0.25)
    assert found.variance_of_mean == pytest.approx(11 / 12 / 4)


def test_a_paired_difference_without_common_items_is_refused():
    with pytest.raises(ValueError, match="no items in common"):
        paired_difference(outcomes([1, 0]), outcomes([1, 0], first=5))


def test_the_macro_interval_matches_a_hand_worked_case():
    tasks = [PairedDifference(98, 8 / 98, 0.0, 10, 2), PairedDifference(198, 0.0, 0.0, 9, 9)]
    found = macro_difference(tasks, [0.75, 0.25])
    # Adjusted: 8/100 with variance (.14 - .0064)/100 = .001336, and 0 with variance (20/200)/200 = .0005.
    error = math.sqrt(0.5625 * 0.001336 + 0.0625 * 0.0005)
    assert found.points == pytest.approx(100 * 0.75 * 8 / 98)
    assert found.low == pytest.approx(100 * (0.06 - 1.959964 * error), abs=1e-4)
    assert found.high == pytest.approx(100 * (0.06 + 1.959964 * error), abs=1e-4)
    assert found.p_one_sided == pytest.approx(NormalDist().cdf(-0.06 / error))


def test_with_many_disagreements_the_interval_is_the_plain_paired_normal_one():
    rng = random.Random(5)
    ours = outcomes([int(rng.random() < 0.62) for _ in range(3000)])
    theirs = outcomes([int(rng.random() < 0.58) for _ in range(3000)])
    difference = paired_difference(ours, theirs)
    found = macro_difference([difference], [1.0])
    reach = 196 * math.sqrt(difference.variance_of_mean)
    assert found.low == pytest.approx(found.points - reach, abs=0.01)
    assert found.high == pytest.approx(found.points + reach, abs=0.01)


def test_identical_outcomes_are_no_gain_with_a_p_value_of_one():
    same = paired_difference(outcomes([1, 0, 1]), outcomes([1, 0, 1]))
    found = macro_difference([same, same], [0.5, 0.5])
    assert (found.points, found.p_one_sided, found.p_worse) == (0.0, 1.0, 1.0)
    assert found.low < 0 < found.high


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_the_interval_excludes_zero_exactly_where_the_p_value_is_small(b, c, agreements):
    n = b + c + agreements
    if b + c:
        found = macro_difference([PairedDifference(n, (b - c) / n, 0.0, b, c)], [1.0])
        assert (found.low >= 0) == (found.p_one_sided <= 0.025)
        assert (found.high <= 0) == (found.p_worse <= 0.025)


def test_few_disagreements_give_nearly_the_exact_p_value():
    for b in range(3, 9):
        found = macro_difference([PairedDifference(1000, b / 1000, 0.0, b, 0)], [1.0])
        assert found.p_one_sided == pytest.approx(mcnemar_exact(b, 0).one_sided, abs=0.04)
        assert (found.p_one_sided <= 0.025) == (mcnemar_exact(b, 0).one_sided <= 0.025)


@pytest.mark.parametrize(("discordance", "items"), [(0.004, 400), (0.02, 400), (0.1, 300), (0.3, 40)])
def test_equal_candidates_are_called_a_gain_at_most_once_in_forty(discordance, items):
    rng, false, rounds = random.Random(11), 0, 2000
    for _ in range(rounds):
        tasks = []
        for _ in range(3):
            b = sum(rng.random() < discordance / 2 for _ in range(items))
            c = sum(rng.random() < discordance / 2 for _ in range(items))
            tasks.append(PairedDifference(items, (b - c) / items, 0.0, b, c))
        false += macro_difference(tasks, [1 / 3] * 3).p_one_sided <= 0.025
    # Two standard errors above the nominal level.
    assert false / rounds <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / rounds)


def test_shares_must_match_the_tasks():
    with pytest.raises(ValueError, match="one share"):
        macro_difference([PairedDifference(3, 0.0, 0.0, 0, 0)], [0.5, 0.5])


def test_a_fixed_sequence_stops_at_the_first_failure():
    assert fixed_sequence([0.01, 0.02, 0.03, 0.001]) == (True, True, False, False)
    assert fixed_sequence([0.026, 0.0]) == (False, False)
    assert fixed_sequence([0.025]) == (True,)
    assert fixed_sequence([]) == ()


def shifted(base: list[int], up: int, down: int) -> list[int]:
    """`base` with `up` wrong answers made right and `down` right ones made wrong."""
    wrong = [i for i, right in enumerate(base) if not right][:up]
    right = [i for i, right in enumerate(base) if right][:down]
    return [1 if i in wrong else 0 if i in right else value for i, value in enumerate(base)]


BASE = [1, 0] * 200


def verdict(*candidates: tuple[int, int]):
    finalists = [(f"t{i}", [outcomes(shifted(BASE, *change))] * 2) for i, change in enumerate(candidates)]
    return confirm(finalists, ("parent", [outcomes(BASE)] * 2), ["one", "two"], [0.5, 0.5])


def test_a_clear_gain_names_the_first_ranked_finalist_even_if_a_later_one_did_better():
    found = verdict((30, 5), (60, 5))
    assert (found.verdict, found.winner, found.reference) == ("gain", "t0", "parent")
    assert found.points == pytest.approx(100 * 25 / 400)
    assert found.low > 0
    assert found.p_one_sided < 0.001
    assert [c.gain for c in found.comparisons] == [True, True]
    assert [(t.task, t.n, t.b, t.c) for t in found.comparisons[0].tasks] == [("one", 400, 30, 5), ("two", 400, 30, 5)]


def test_a_failing_first_finalist_ends_the_sequence():
    found = verdict((6, 5), (60, 5))
    assert (found.verdict, found.winner) == ("no gain", None)
    assert [(c.tested, c.gain) for c in found.comparisons] == [(True, False), (False, False)]


def test_a_clear_loss_is_worse_and_no_finalist_is_no_gain():
    assert verdict((5, 40)).verdict == "worse"
    assert verdict((0, 0)).verdict == "no gain"
    assert verdict().verdict == "no gain"
    assert verdict().points is None


def test_a_p_value_far_out_is_small_but_not_zero_and_is_shown_as_a_bound():
    found = macro_difference([PairedDifference(1000, 0.3, 0.0002, 300, 0)], [1.0])
    assert 0 < found.p_one_sided < 1e-12
    assert shown_p(found.p_one_sided) == "p < 1e-12"
    assert shown_p(0.0213) == "p = 0.021"


@pytest.mark.parametrize(("b", "c", "kept"), [(40, 60, "proven"), (10, 30, "open"), (0, 80, "broken")])
def test_a_floor_is_proven_kept_or_proven_broken_by_the_adjusted_interval(b, c, kept):
    n, floor = 1000, 5.0 if kept != "open" else 2.5
    found = floor_test(PairedDifference(n, (b - c) / n, 0.0, b, c), floor)
    # One disagreement added each way: mean (b - c) / 1002, second moment (b + c + 2) / 1002.
    centre = (b - c) / 1002
    error = math.sqrt(((b + c + 2) / 1002 - centre**2) / 1002)
    normal = NormalDist()
    assert found.kept == kept
    assert found.points == pytest.approx(100 * (b - c) / n)
    assert found.low == pytest.approx(100 * (centre - normal.inv_cdf(0.975) * error))
    assert found.p_one_sided == pytest.approx(1 - normal.cdf((centre + floor / 100) / error), abs=1e-12)


def test_a_floor_is_kept_exactly_where_the_lower_bound_is_above_it():
    for c in range(0, 80, 5):
        found = floor_test(PairedDifference(800, (20 - c) / 800, 0.0, 20, c), 3.0)
        assert (found.kept == "proven") == (found.low >= -3.0)
