from __future__ import annotations

import numpy as np
import pytest

from tests.merging.methods.task_vector_oracle import deltas, near

EPSILON = 1e-5


def active(models, base, epsilon):
    return [np.where(np.abs(delta) > np.float32(epsilon), delta, 0) for delta in deltas(models, base)]


def sparse(arrays):
    """Changes in about half of the entries, some of them smaller than any epsilon."""
    generator = np.random.default_rng(8)
    base = arrays[3]
    found = []
    for array in arrays[:3]:
        kept = generator.choice([0.0, 1e-6, 1.0], size=base.shape, p=[0.4, 0.1, 0.5])
        found.append((base + kept * (array - base)).astype(np.float32))
    return found, base


@pytest.mark.parametrize("epsilon", [0.0, EPSILON, 0.05])
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_it_takes_the_mean_of_the_changes_that_are_there(merge, arrays, epsilon, sources):
    models, base = sparse(arrays)
    parts = active(models[:sources], base, epsilon)
    count = sum((part != 0).astype(int) for part in parts)
    out = merge("ram", models[:sources], base=base, params={"epsilon": epsilon})
    near(out.numpy(), base + sum(parts) / np.maximum(count, 1))


def test_a_case_worked_by_hand(merge):
    base = np.float32([0, 0, 0, 0, 0])
    models = [np.float32([3, 0, 0.25, -1, 9]), np.float32([0, 0, 0.75, 3, 6]), np.float32([0, 0, 0, -5, 0])]
    assert merge("ram", models, base=base).tolist() == [3, 0, 0.5, -1, 7.5]


def test_a_change_of_exactly_epsilon_does_not_count(merge):
    base = np.zeros(3, np.float32)
    models = [np.float32([0.5, -0.5, 0.75]), np.float32([1.0, 1.0, 0.25])]
    assert merge("ram", models, base=base, params={"epsilon": 0.5}).tolist() == [1.0, 1.0, 0.75]


def test_zero_changes_give_the_base(merge, arrays):
    base = arrays[3]
    assert np.array_equal(merge("ram", [base, base], base=base, params={"epsilon": 0.0}).numpy(), base)
