from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from merging.kernels import Inputs
from merging.methods.darex_q import best_q, kernel, phi
from merging.randomness import keep_mask, mask_key

SEED = 5


def mask(position, shape, density):
    size = math.prod(shape)
    drawn = keep_mask(mask_key(SEED, str(position), "weight"), 0, size, density, torch.device("cpu"))
    return drawn.numpy().reshape(shape)


def sources(*values):
    return [dict(zip(("weight", "density", "q"), each, strict=True)) for each in values]


def searched(row, density, activations=1.0):
    """The paper's line search for one output row, term by term."""
    c, p = row.astype(np.float64) * activations, 1 - density
    best, found = math.inf, None
    for q in (density, *(step / 1000 for step in range(1, 1000) if step / 1000 > density)):
        bound = 0.45 * (1 - density / q) * c.sum() + 0.45**2 * phi(p) * (c**2).sum() / (4 * q**2) + math.log(2 / 0.05)
        if abs(bound) <= best:
            best, found = abs(bound), q
    return found


def test_what_is_kept_is_divided_by_q(merge, arrays):
    *models, base = arrays
    values = sources((1.0, 0.3, 0.5), (0.5, 0.1, 0.1), (-0.25, 0.8, 1.0))
    out = merge("darex_q", models, base=base, params={"lambda": 0.9}, sources=values).numpy()
    expected = base.astype(np.float64)
    for position, (model, each) in enumerate(zip(models, values, strict=True)):
        kept = mask(position, base.shape, each["density"])
        expected = expected + 0.9 * each["weight"] * kept * (model.astype(np.float64) - base) / each["q"]
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


def test_a_q_at_the_density_is_dare_and_a_smaller_one_counts_as_that(merge, arrays):
    *models, base = arrays
    dare = merge("dare_linear", models, base=base, sources=[{"density": 0.25}] * 3)
    for q in (0.25, 0.1):
        assert torch.equal(merge("darex_q", models, base=base, sources=sources(*[(1.0, 0.25, q)] * 3)), dare)


def test_nothing_is_divided_where_nothing_is_dropped(merge):
    base, model = np.float32([1, 2]), np.float32([1.5, 4])
    assert merge("darex_q", [model], base=base, sources=sources((1.0, 1.0, 0.5))).tolist() == model.tolist()
    assert merge("darex_q", [model], base=base, sources=sources((1.0, 0.0, 0.5))).tolist() == base.tolist()


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 0.9995])
@pytest.mark.parametrize("size", [0.01, 0.5, 3.0])
def test_the_analytic_q_is_the_one_of_the_papers_search(density, size):
    rows = np.random.default_rng(1).normal(size=(40, 30)) * size - 0.3 * size
    plain, squared = torch.from_numpy(rows.sum(axis=1)), torch.from_numpy((rows**2).sum(axis=1))
    assert best_q(density, plain, squared).tolist() == [searched(row, density) for row in rows]


def test_a_row_worked_by_hand():
    # phi(1/2) = 1/2. With a sum of -20 the bound 0.45 (1 - 1/(2q)) (-20) + 3.6889 + small falls from 3.69 at q = 1/2
    # through 0 where 9 (1 - 1/(2q)) = 3.6889, at q = 0.8473.
    found = best_q(0.5, torch.tensor([-20.0], dtype=torch.float64), torch.tensor([0.0], dtype=torch.float64))
    assert found.tolist() == [0.847]


def test_phi_is_smooth_at_one_half_and_known_elsewhere():
    assert phi(0.5) == 0.5
    assert phi(0.5 + 1e-5) == pytest.approx(0.5, abs=1e-9)
    assert phi(0.9) == pytest.approx(0.8 / math.log(9))
    assert phi(0.1) == pytest.approx(phi(0.9))


def analytic_case():
    generator = np.random.default_rng(2)
    base = generator.normal(size=(30, 50)).astype(np.float32)
    change = (generator.normal(size=base.shape) - 0.5).astype(np.float32)
    change[3] = 0.0
    return (base + change).astype(np.float32), base


def test_a_tensor_takes_the_mean_of_its_rows_and_those_without_change_do_not_count(merge):
    model, base = analytic_case()
    delta = model - base
    q = np.mean([searched(row, 0.2) for row in delta if row.any()])
    assert 0.2 < q < 0.999
    out = merge("darex_q", [model], base=base, params={"q_rule": "analytic"}, sources=[{"density": 0.2}]).numpy()
    np.testing.assert_allclose(out, base + mask(0, base.shape, 0.2) * delta / q, rtol=0, atol=1e-5)


def test_rows_may_have_a_q_of_their_own(merge):
    model, base = analytic_case()
    delta = model - base
    q = np.array([[searched(row, 0.2)] for row in delta])
    assert np.unique(q).size > 10
    out = merge("darex_q", [model], base=base, params={"q_rule": "analytic_rows"}, sources=[{"density": 0.2}]).numpy()
    np.testing.assert_allclose(out, base + mask(0, base.shape, 0.2) * delta / q, rtol=0, atol=1e-5)


def step(model, base, rule, activations=None):
    return kernel(
        Inputs(
            tensors=(torch.from_numpy(model).reshape(-1), torch.from_numpy(base).reshape(-1)),
            shape=base.shape,
            name="weight",
            base=1,
            params={"q_rule": rule, "lambda": 1.0},
            source_params=({"weight": 1.0, "density": 0.2, "q": 1.0}, {}),
            keys=(mask_key(SEED, "0", "weight"), mask_key(SEED, "1", "weight")),
            content=("0", "1"),
            activations=None if activations is None else torch.from_numpy(activations),
        )
    )


def test_activations_weigh_the_columns():
    model, base = analytic_case()
    activations = np.random.default_rng(3).uniform(0.1, 3.0, size=50).astype(np.float32)
    q = [searched(row, 0.2, activations) for row in model - base]
    (field,) = step(model, base, "analytic_rows", activations).fields
    np.testing.assert_allclose(field.flatten().numpy(), 1 / np.array(q), rtol=1e-6)
    (unit,) = step(model, base, "analytic_rows").fields
    (ones,) = step(model, base, "analytic_rows", np.ones(50, np.float32)).fields
    assert torch.equal(unit, ones)
    assert not torch.equal(unit, field)


def test_the_elements_of_a_vector_are_its_rows():
    base, model = np.zeros(3, np.float32), np.float32([-30, 0.5, 0])
    (field,) = step(model, base, "analytic_rows").fields
    np.testing.assert_allclose(field.numpy(), [1 / searched(np.array([d]), 0.2) for d in model], rtol=1e-6)
    mean = (searched(np.array([-30]), 0.2) + searched(np.array([0.5]), 0.2)) / 2
    assert step(model, base, "analytic").numbers[2] == pytest.approx(1 / mean)
