from __future__ import annotations

import numpy as np
import pytest

from tests.merging.methods.task_vector_oracle import elected, near
from tests.merging.methods.test_breadcrumbs import SOURCES, WEIGHTS, thinned


@pytest.mark.parametrize("elect", ["weighted", "unweighted"])
@pytest.mark.parametrize("outliers", ["tensor", "row"])
@pytest.mark.parametrize("rule", ["none", "l1"])
def test_it_drops_both_ends_elects_and_merges(merge, arrays, outliers, rule, elect):
    arrays = [array[:70] for array in arrays]
    for factor, normalize in ((1.0, False), (0.7, True)):
        params = {"outliers": outliers, "rescale": rule, "elect": elect, "lambda": factor, "normalize": normalize}
        out = merge("breadcrumbs_ties", arrays[:3], base=arrays[3], sources=SOURCES, params=params)
        parts = thinned(arrays[:3], arrays[3], outliers, rule)
        theirs = elected(arrays[3], parts, WEIGHTS, elect=elect, normalize=normalize, factor=factor)
        near(out.numpy(), theirs)


def test_a_case_worked_by_hand(merge):
    base = np.float32([1, 1, 1, 1])
    models = [base + np.float32([9, 3, -2, 1]), base + np.float32([2, -4, -3, 8])]
    values = [{"density": 0.5, "gamma": 0.25}] * 2
    # 9 and 8 go, 3 and -2 stay of the first, -4 and -3 of the second; -4 wins against 3, and both twos agree.
    out = merge("breadcrumbs_ties", models, base=base, sources=values)
    assert out.tolist() == [1, 1 - 4, 1 - 5, 1]
