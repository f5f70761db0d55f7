from __future__ import annotations

import numpy as np
import pytest

from tests.merging.methods.task_vector_oracle import added_up, drawn, near
from tests.merging.methods.test_della import SOURCES, WEIGHTS, thinned


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2", "none"])
@pytest.mark.parametrize(("factor", "normalize"), [(1.0, False), (0.7, True)])
def test_it_drops_by_rank_rescales_and_adds_up(merge, arrays, rule, factor, normalize):
    arrays = [array[:60] for array in arrays]
    params = {"rescale": rule, "lambda": factor, "normalize": normalize}
    out = merge("della_linear", arrays[:3], base=arrays[3], sources=SOURCES, params=params)
    parts = thinned(arrays[:3], arrays[3], rule)
    near(out.numpy(), added_up(arrays[3], parts, WEIGHTS, normalize=normalize, factor=factor))


def test_a_case_worked_by_hand(merge):
    base = np.float32([1, 1, 1])
    models = [base + np.float32([1, -2, 3]), base + np.float32([6, 4, 5])]
    chance = [np.array([0.25, 0.5, 0.75]), np.array([0.75, 0.25, 0.5])]
    kept = [np.where(drawn(i, (3,)) < chance[i], (models[i] - base) / chance[i], 0) for i in range(2)]
    values = [{"weight": weight, "density": 0.5, "epsilon": 0.25} for weight in (1.0, 2.0)]
    out = merge("della_linear", models, base=base, sources=values)
    np.testing.assert_allclose(out.numpy(), 1 + kept[0] + 2 * kept[1], rtol=1e-6)
