from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.methods import method_of


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def importance(model, base):
    ours, theirs = log_softmax(model.astype(np.float64)), log_softmax(base.astype(np.float64))
    return np.abs(model.astype(np.float64) - base) * (np.exp(ours) * (ours - theirs)).sum(axis=-1, keepdims=True)


def threshold(values):
    ordered = np.sort(values.ravel())
    low, middle, high = (ordered[int(share * (ordered.size - 1))] for share in (0.25, 0.5, 0.75))
    return middle + 1.5 * (high - low)


@pytest.mark.parametrize("shape", [(50, 41), (1, 30), (30,), (3, 4, 5)])
@pytest.mark.parametrize("size", [0.3, 1e-4])
def test_what_stands_out_is_taken_and_the_rest_left(merge, shape, size):
    generator = np.random.default_rng(3)
    base = generator.normal(size=shape).astype(np.float32)
    model = (base + size * generator.normal(size=shape)).astype(np.float32)
    found = importance(model, base)
    taken = found >= threshold(found)
    out = merge("arcee_fusion", [model], base=base).numpy()
    assert np.array_equal(out != base, taken)
    assert np.array_equal(out[taken], model[taken])
    assert 0 < taken.mean() < 0.3


def test_a_row_that_changes_more_is_taken_before_others_worked_by_hand(merge):
    base = np.zeros((2, 4), np.float32)
    model = np.float32([[0.1, -0.1, 0.1, -0.1], [1, -1, 1, -2]])
    found = importance(model, base)
    # Four elements of the first row are the lowest, so q_1 is theirs, q_2 too, and q_3 is one of the second row's.
    limit = found[0, 0] + 1.5 * (found[1, 0] - found[0, 0])
    assert (found >= limit).tolist() == [[False] * 4, [False, False, False, True]]
    assert merge("arcee_fusion", [model], base=base).tolist() == [[0] * 4, [0, 0, 0, -2]]


def test_the_quartiles_are_those_of_all_elements_whatever_the_global_generator_says(merge):
    generator = np.random.default_rng(4)
    base = generator.normal(size=(1050, 1000)).astype(np.float32)
    model = (base + 0.1 * generator.normal(size=base.shape)).astype(np.float32)
    found = importance(model, base)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        out = merge("arcee_fusion", [model], base=base).numpy()
    clear = np.abs(found / threshold(found) - 1) > 1e-6
    assert np.array_equal((out != base)[clear], (found >= threshold(found))[clear])
    assert clear.mean() > 0.9999


def test_where_all_is_equally_important_all_is_taken(merge):
    base = np.float32([[1], [2], [3]])
    assert merge("arcee_fusion", [base + 1], base=base).tolist() == (base + 1).tolist()


def test_an_outlier_far_beyond_what_exp_can_hold_is_no_obstacle(merge):
    base = np.float32([[0, 0, 0, 1000], [0, 0, 1, 0]])
    out = merge("arcee_fusion", [base + np.float32([[0, 0, 0, -2000], [0, 0, 0, 0]])], base=base)
    assert torch.isfinite(out).all()


def test_nothing_that_it_finds_out_depends_on_the_candidate():
    assert method_of("arcee_fusion").info.params == ()
