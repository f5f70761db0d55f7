"""Paired, smoothed scores, by hand and by simulation."""

import math

import numpy as np
import pytest

from search.scores import paired, plain, smooth


def test_a_margin_is_smoothed_by_a_quarter_of_the_median_distance():
    margins = np.array([-2.0, 0.0, 1.0, 4.0])  # Median of 0, 1, 2, 4 is 1.5, so h = 0.375.
    expected = [0.5 * math.erfc(-m / 0.375 / math.sqrt(2)) for m in margins]
    assert smooth(margins) == pytest.approx(expected, abs=1e-12)


def test_margins_that_are_all_zero_say_nothing():
    assert smooth(np.zeros(3)).tolist() == [0.5, 0.5, 0.5]
    assert smooth(np.array([0.0, 0.0, 0.0, 5.0])).tolist() == [0.5, 0.5, 0.5, 1.0]
    assert smooth(np.array([])).tolist() == []


def test_a_score_is_the_references_mean_and_the_paired_difference_on_the_prefix():
    reference = [np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.5, 0.5])]
    heard = paired([np.array([1.0, 1.0]), np.array([0.75])], reference, [0.75, 0.25])
    # Task 1: 0.5 + mean(0, 1) = 1.0 with variance 0.5 / 2; task 2: 0.5 + 0.25 with the variance of a coin.
    assert heard.tasks == (1.0, 0.75)
    assert heard.score == pytest.approx(0.75 * 1.0 + 0.25 * 0.75)
    assert heard.variance == pytest.approx(0.75**2 * 0.25 + 0.25**2 * 0.25)
    assert heard.items == 3


def test_the_reference_hears_its_own_mean_without_doubt():
    reference = [np.array([1.0, 0.0, 1.0])]
    heard = paired(reference, reference, [1.0])
    assert (heard.score, heard.variance) == (pytest.approx(2 / 3), 0.0)


def test_pairing_removes_the_difficulty_of_the_items():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=(2000, 400))
    reference = (difficulty + 0.3 * rng.normal(size=difficulty.shape) > 0).astype(float)
    candidate = (difficulty + 0.1 + 0.3 * rng.normal(size=difficulty.shape) > 0).astype(float)
    found = [paired([c[:100]], [r], [1.0]) for c, r in zip(candidate, reference, strict=True)]
    alone = candidate[:, :100].mean(axis=1)
    truth = candidate.mean()
    errors = np.array([heard.score for heard in found]) - truth
    # The told variance is of the difference; the reference's own sample adds what it adds for every candidate alike.
    assert np.mean([heard.variance for heard in found]) < 0.55 * alone.var()
    assert errors.std() < 0.9 * alone.std()
    assert abs(errors.mean()) < 3 * errors.std() / math.sqrt(len(errors))


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="share"):
        paired([np.ones(2)], [np.ones(2)], [0.5, 0.5])
    with pytest.raises(ValueError, match="share"):
        paired([], [], [])
    with pytest.raises(ValueError, match="score the reference"):
        paired([np.ones(3)], [np.ones(2)], [1.0])
    with pytest.raises(ValueError, match="score the reference"):
        paired([np.ones(0)], [np.ones(2)], [1.0])


def test_plain_scores_are_shares_with_their_binomial_variance():
    found = plain([np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0])], [0.25, 0.75])
    assert found.score == pytest.approx(0.25 * 0.75 + 0.75 * 0.5)
    # p (1 - p) / (n - 1): 0.75 * 0.25 / 3 and 0.5 * 0.5 / 1.
    assert found.variance == pytest.approx(0.25**2 * 0.0625 + 0.75**2 * 0.25)
    assert (found.items, found.tasks) == (6, (0.75, 0.5))
