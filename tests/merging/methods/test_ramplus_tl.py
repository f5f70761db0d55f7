from __future__ import annotations

import numpy as np
import pytest

from merging.overlaps import shares
from tests.merging.methods.task_vector_oracle import near
from tests.merging.methods.test_ram import active, sparse


def expected(parts, base, strength, limit):
    count = sum((part != 0).astype(int) for part in parts)
    out = base.astype(np.float64)
    for part in parts:
        here = part != 0
        shared, alone = (here & (count > 1)).sum(), (here & (count == 1)).sum()
        factor = 1 + strength * min(shared / alone if alone else limit, limit)
        out = out + np.where(count == 1, factor * part, part / np.maximum(count, 1))
    return out


@pytest.mark.parametrize(("strength", "limit"), [(0.1, 0.2), (0.5, 10.0), (0.0, 1.0)])
@pytest.mark.parametrize("epsilon", [1e-5, 0.05])
def test_single_changes_are_strengthened_by_what_is_shared(merge, arrays, strength, limit, epsilon):
    models, base = sparse(arrays)
    for sources in (1, 2, 3):
        out = merge(
            "ramplus_tl",
            models[:sources],
            base=base,
            params={"r": strength, "alpha": limit, "epsilon": epsilon},
        )
        near(out.numpy(), expected(active(models[:sources], base, epsilon), base, strength, limit))


def test_a_case_worked_by_hand(merge):
    base = np.zeros(5, np.float32)
    models = [np.float32([4, 2, 0, 0, 8]), np.float32([0, 6, 1, 0, 0])]
    # The first shares 1 and has 2 alone: 1 + 0.5 * 0.5. The second shares 1 and has 1 alone: 1 + 0.5 * 0.75.
    out = merge("ramplus_tl", models, base=base, params={"r": 0.5, "alpha": 0.75})
    assert out.tolist() == [5.0, 4.0, 1.375, 0.0, 10.0]


def test_shares_are_counted_once_per_epsilon(inputs_of):
    models = [np.float32([4, 2, 0, 0, 8]), np.float32([0, 6, 1, 0, 0])]
    inputs = inputs_of(models, np.zeros(5, np.float32), epsilon=1e-5)
    assert shares(inputs) == [(1, 2), (1, 1)]
    assert shares(inputs) is shares(inputs)
    assert shares(inputs_of(models, np.zeros(5, np.float32), epsilon=3.0)) == [(0, 2), (0, 1)]


def test_equal_models_share_everything_and_come_back(merge, arrays):
    model, base = arrays[0], arrays[3]
    out = merge("ramplus_tl", [model, model], base=base, params={"epsilon": 0.0})
    np.testing.assert_allclose(out.numpy(), base + (model - base), rtol=0, atol=1e-6)
