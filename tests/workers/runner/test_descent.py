import math

import pytest

from workers.runner.descent import DRIFTED, SPENT, Answer, Bounds, Look, Pace, Walk, walk

WIDE = Bounds(-10.0, 10.0, 0.0)


def bowl(at, cost=9):
    """The loss |point - at|^2 / 2."""
    return lambda step, point: Answer(
        sum((p - a) ** 2 for p, a in zip(point, at, strict=True)) / 2,
        cost,
        [p - a for p, a in zip(point, at, strict=True)],
    )


def nearness(at, cost=2):
    return lambda point: Answer(-math.dist(point, at), cost)


def walked(bounds, pace, at, kept=None, **options):
    return walk(bounds, pace, loss=bowl(at), score=nearness(kept or at), clock=lambda: 0.0, **options)


def test_it_goes_to_the_minimum():
    found = walked([WIDE, WIDE], Pace(rate=0.1, max_items=2000, patience=99), (1.0, -0.5))
    assert found.best.point == pytest.approx((1.0, -0.5), abs=0.02)


def test_the_first_step_of_adam_has_the_size_of_its_rate_whatever_the_slope():
    found = walked([WIDE, WIDE], Pace(rate=0.06, max_items=13, check_every=1), (1.0, -100.0))
    assert found.iterates[1] == pytest.approx((0.06, -0.06), rel=1e-6)


def test_narrow_intervals_are_walked_in_narrow_steps():
    found = walked([Bounds(0.0, 0.1, 0.05)], Pace(rate=0.06, max_items=13, check_every=1), (1.0,))
    assert found.iterates[1][0] == pytest.approx(0.05 + 0.06 * 0.1, rel=1e-6)


def test_no_coefficient_leaves_its_interval():
    found = walked([Bounds(0.0, 0.3, 0.1)], Pace(rate=0.5, max_items=300, patience=99), (5.0,))
    assert all(0.0 <= point[0] <= 0.3 for point in found.iterates)
    assert found.best.point == (0.3,)


def test_it_ends_once_the_kept_back_score_no_longer_rises():
    """The loss falls on towards 5; the kept-back items are best at 0.3 and say so."""
    found = walked([WIDE], Pace(rate=0.1, max_items=10_000, check_every=1, patience=2), (5.0,), kept=(0.3,))
    assert found.ended == DRIFTED
    assert found.best.point == pytest.approx((0.3,), abs=0.06)
    assert len(found.looks) == found.looks.index(found.best) + 3


def test_it_never_spends_more_than_it_may():
    for limit in (2, 13, 50, 101):
        found = walked([WIDE], Pace(max_items=limit, check_every=3, patience=99), (5.0,))
        assert found.items <= limit


def test_all_that_was_asked_is_counted():
    found = walked([WIDE], Pace(max_items=60, check_every=2, patience=99), (5.0,))
    steps, looks = len(found.iterates) - 1, len(found.looks)
    assert found.items == 9 * steps + 2 * looks
    assert found.looks[-1].step == steps


def test_looks_are_told_as_they_are_made():
    told: list[Look] = []
    found = walked([WIDE], Pace(max_items=60, check_every=2), (5.0,), told=told.append)
    assert tuple(told) == found.looks
    assert told[0].loss is None
    assert told[1].loss == pytest.approx((bowl((5.0,))(0, (0.0,)).value + bowl((5.0,))(1, found.iterates[1]).value) / 2)


def test_a_walk_that_drifted_off_gives_its_best_and_the_mean_around_it():
    iterates = tuple((float(step),) for step in range(8))
    looks = tuple(
        Look(step, None, score, 0, 0.0, iterates[step]) for step, score in ((0, 0.1), (2, 0.3), (4, 0.9), (7, 0.5))
    )
    assert Walk(looks, iterates, DRIFTED).points() == ((4.0,),)
    # From half the way to the best, as far beyond it: here as far as it was walked.
    assert Walk(looks, (*iterates[:5], (9.0,), (9.0,)), DRIFTED).points() == ((4.0,), ((2 + 3 + 4 + 9 + 9) / 5,))


def test_a_walk_that_was_cut_short_gives_its_best_alone():
    looks = (Look(0, None, 0.1, 0, 0.0, (0.0,)), Look(2, None, 0.3, 0, 0.0, (2.0,)), Look(3, None, 0.2, 0, 0.0, (3.0,)))
    assert Walk(looks, ((0.0,), (1.0,), (2.0,), (3.0,)), SPENT).points() == ((2.0,),)


def test_a_walk_that_found_nothing_better_than_its_start_does_not_return_it():
    looks = (Look(0, None, 0.9, 0, 0.0, (0.0,)), Look(1, 1.0, 0.1, 0, 0.0, (1.0,)))
    assert (0.0,) not in Walk(looks, ((0.0,), (1.0,)), SPENT).points()
