from __future__ import annotations

import numpy as np
import pytest


def test_it_is_the_weighting_of_its_source(merge, arrays):
    model, base = arrays[0].astype(np.float64), arrays[3].astype(np.float64)
    for t in (0.001, 0.05, 0.2):
        share = np.minimum(t / np.abs(model - base), 1.0)
        out = merge("nearswap", arrays[:1], base=arrays[3], params={"t": t}).numpy()
        np.testing.assert_allclose(out, share * model + (1 - share) * base, rtol=0, atol=5e-7)


def test_near_weights_are_swapped_and_far_ones_step_worked_by_hand(merge):
    base, model = np.float32([0, 0, 0, 0, 2]), np.float32([0.25, -0.25, 1, -1, 2])
    assert merge("nearswap", [model], base=base, params={"t": 0.5}).tolist() == [0.25, -0.25, 0.5, -0.5, 2]


def test_the_ends_are_both_parents(merge):
    base, model = np.float32([[1, -2], [0.5, 8]]), np.float32([[1.5, -4], [0.5, -8]])
    assert np.array_equal(merge("nearswap", [model], base=base, params={"t": 0.0}).numpy(), base)
    assert np.array_equal(merge("nearswap", [model], base=base, params={"t": 100.0}).numpy(), model)


def test_a_step_far_below_a_millionth_means_what_it_says(merge):
    out = merge("nearswap", [np.float32([1.0, 1e-8])], base=np.float32([0.0, 0.0]), params={"t": 1e-9})
    assert out.tolist() == pytest.approx([1e-9, 1e-9], rel=1e-6)
