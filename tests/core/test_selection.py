import math
import random

import pytest

from core.selection import expected_largest, selection


@pytest.mark.parametrize(("count", "value"), [(1, 0.0), (8, 1.42), (20, 1.87), (50, 2.25), (100, 2.5)])
def test_the_expected_largest_of_n_is_that_of_the_tables(count, value):
    assert expected_largest(count) == pytest.approx(value, abs=0.015)


def test_two_candidates_of_four_items_by_hand():
    # Variances of the items 2/3 and 1/4, of their means a quarter of that; the averaged items are (1, 0, -1/2, 0).
    found = selection([[[1, 0, -1, 0]], [[1, 0, 0, 0]]], [1.0], 2)
    single, common = (2 / 12 + 0.25 / 4) / 2, (1.25 - 0.25 * 0.25) / 3 / 4
    rho = 2 * common / single - 1
    assert found.stderr == pytest.approx(100 * math.sqrt(single))
    assert found.correlation == pytest.approx(rho)
    assert found.points == pytest.approx(expected_largest(2) * 100 * math.sqrt(single * (1 - rho)))


def test_candidates_that_answer_alike_gain_nothing_by_being_chosen():
    found = selection([[[1, 0, -1, 0]]] * 5, [1.0], 5)
    assert (found.correlation, found.points) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-6))


def test_it_tells_what_the_best_of_many_equal_candidates_seems_to_gain():
    draws, gains, told = random.Random(7), [], []
    for _ in range(60):
        # Every candidate disagrees with the reference on a tenth of 200 items, as often for the better as the worse.
        items = [[draws.choices((-1, 0, 1), (1, 18, 1))[0] for _ in range(200)] for _ in range(20)]
        gains.append(max(100 * sum(each) / 200 for each in items))
        told.append(selection([[each] for each in items], [1.0], 20).points)
    assert sum(told) / 60 == pytest.approx(sum(gains) / 60, rel=0.1)


def test_nothing_can_be_told_of_nobody():
    with pytest.raises(ValueError):
        selection([], [1.0], 0)
