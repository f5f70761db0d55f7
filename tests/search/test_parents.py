import random

import pytest

from core.outcomes import Outcomes
from search.parents import leader_of, told_apart

SHARES = (0.5, 0.5)


def answers(*shares: float, items: int = 100) -> list[Outcomes]:
    """Per task so many of the items right: the first ones, so that whoever is better has all that others have."""
    return [
        Outcomes(tuple(range(items)), tuple(int(n < share * items) for n in range(items)), (0.0,) * items)
        for share in shares
    ]


def test_the_leader_has_the_highest_weighted_mean_and_is_the_first_of_equals():
    found = {"a": answers(0.4, 0.6), "b": answers(0.7, 0.2), "c": answers(0.5, 0.5)}
    assert leader_of(found, SHARES) == "a"
    assert leader_of(found, (0.9, 0.1)) == "b"


def test_whoever_is_significantly_behind_is_told_apart_and_the_leader_never():
    # Behind by 4 and by 5 of 100 items, none the other way: with one added each way the adjusted mean difference is
    # 4 / 102 and 5 / 102, its standard error sqrt((6 / 102 - (4 / 102)^2) / 102) and so on, z 1.65 and 1.91; by 6, 2.13.
    found = {"best": answers(0.5), "four": answers(0.46), "five": answers(0.45), "six": answers(0.44)}
    assert told_apart(found, (1.0,)) == {"six"}


def test_two_that_are_good_at_different_things_are_not_told_apart_by_a_little():
    # 5 points of difference on 200 items, where tasks that agree in sign would need no more than that.
    assert told_apart({"one": answers(0.9, 0.3), "other": answers(0.3, 0.8)}, SHARES) == set()
    assert told_apart({"one": answers(0.6, 0.6), "other": answers(0.55, 0.55)}, SHARES) == {"other"}


def test_the_best_of_equals_is_rarely_lost():
    """Of 2,000 pairs as good as one another a pair is told apart in one of twenty (either of the two may lead)."""
    draw, lost = random.Random(11), 0
    for _ in range(2000):
        pair = {
            name: [Outcomes(tuple(range(60)), tuple(int(draw.random() < 0.6) for _ in range(60)), (0.0,) * 60)]
            for name in "ab"
        }
        lost += bool(told_apart(pair, (1.0,)))
    assert 0.02 < lost / 2000 < 0.06


def test_without_parents_nobody_leads():
    with pytest.raises(ValueError, match="empty"):
        leader_of({}, SHARES)
