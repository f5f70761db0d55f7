import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jobs import Racing
from core.rungs import adapted, items_of, rung_sizes


def test_the_default_rungs_end_with_all_search_items():
    assert rung_sizes(Racing(), [1119, 1000, 1000]) == (50, 200, 1000, 1119)
    assert rung_sizes(Racing(), [300, 300, 300]) == (50, 200, 300)


def test_rungs_are_cut_to_what_the_largest_task_has():
    assert rung_sizes(Racing(), [30]) == (30,)
    assert rung_sizes(Racing(), [50, 20]) == (50,)
    assert rung_sizes(Racing(rungs=(400, 100, 100)), [250]) == (100, 250)


@given(st.lists(st.integers(1, 3000), max_size=6), st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_rungs_rise_strictly_to_all_items(wanted, counts):
    if max(counts) == 0:
        with pytest.raises(ValueError, match="search items"):
            rung_sizes(Racing(rungs=tuple(wanted)), counts)
        return
    sizes = rung_sizes(Racing(rungs=tuple(wanted)), counts)
    assert sizes[-1] == max(counts)
    assert all(a < b for a, b in itertools.pairwise(sizes))
    assert sizes[0] >= 1


def test_the_first_rung_is_raised_until_scoring_takes_a_third_of_a_build():
    counts, rungs = [1119, 1000, 120], (50, 200, 1000, 1119)
    assert items_of(200, counts) == 520  # 200 + 200 + 120
    # The first rung has 150 items, a third of 450; the second 520, a third of 1560.
    assert adapted(rungs, counts, 450) == rungs
    assert adapted(rungs, counts, 451) == (51, 200, 1000, 1119)
    assert adapted(rungs, counts, 1200) == (200, 1000, 1119)
    assert adapted(rungs, counts, 1560) == (200, 1000, 1119)
    assert adapted(rungs, counts, 1561) == (201, 1000, 1119)
    assert adapted(rungs, counts, 1e9) == (1119,)
    assert adapted(rungs, counts, 0) == rungs
