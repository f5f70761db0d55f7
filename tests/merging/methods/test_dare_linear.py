from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.merging.methods.task_vector_oracle import added_up, deltas, drawn, near, norm_ratio

SOURCES = [
    {"weight": 0.6, "density": 0.3, "q": 0.5},
    {"weight": -0.4, "density": 0.75, "q": 0.9},
    {"weight": 0.9, "density": 1.0, "q": 0.2},
]
WEIGHTS = [values["weight"] for values in SOURCES]


def thinned(models, base, rule):
    found = []
    for number, (delta, values) in enumerate(zip(deltas(models, base), SOURCES, strict=True)):
        density = values["density"]
        kept = np.where(drawn(number, delta.shape) < density, delta, 0)
        if density < 1:
            kept *= {"inv_density": 1 / density, "q": 1 / values["q"], "none": 1.0}.get(rule) or norm_ratio(
                delta, kept, rule
            )
        found.append(kept)
    return found


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2", "q", "none"])
@pytest.mark.parametrize(("factor", "normalize"), [(1.0, False), (0.7, True)])
def test_it_drops_rescales_and_adds_up(merge, arrays, rule, factor, normalize):
    params = {"rescale": rule, "lambda": factor, "normalize": normalize}
    out = merge("dare_linear", arrays[:3], base=arrays[3], sources=SOURCES, params=params)
    parts = thinned(arrays[:3], arrays[3], rule)
    near(out.numpy(), added_up(arrays[3], parts, WEIGHTS, normalize=normalize, factor=factor))


def test_a_case_worked_by_hand(merge):
    base, change = np.float32([1, 1, 1, 1]), np.float32([4, -2, 8, 6])
    kept = drawn(0, (4,)) < 0.5
    out = merge("dare_linear", [base + change], base=base, sources=[{"density": 0.5}])
    assert out.tolist() == (1 + 2 * change * kept).tolist()
    out = merge(
        "dare_linear", [base + change], base=base, sources=[{"density": 0.5, "q": 0.8}], params={"rescale": "q"}
    )
    np.testing.assert_allclose(out, 1 + change * kept / 0.8, rtol=1e-6)


def test_bfloat16_is_rounded_once_at_the_end(merge, arrays):
    halves = [torch.tensor(array).bfloat16() for array in arrays]
    narrow = merge("dare_linear", halves[:3], base=halves[3], sources=SOURCES, dtype=torch.bfloat16)
    wide = merge("dare_linear", [half.float() for half in halves[:3]], base=halves[3].float(), sources=SOURCES)
    assert torch.equal(narrow, wide.bfloat16())


def test_a_mask_of_lower_density_lies_inside_that_of_a_higher_one(merge, arrays):
    one, zero = np.ones_like(arrays[0]), np.zeros_like(arrays[0])
    masks = [merge("dare_linear", [one], base=zero, sources=[{"density": d}]).numpy() != 0 for d in (0.2, 0.5, 0.9)]
    assert masks[0].mean() == pytest.approx(0.2, abs=0.01)
    for low, high in itertools.pairwise(masks):
        assert low.sum() < high.sum()
        assert not (low & ~high).any()


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2", "q", "none"])
def test_density_one_changes_nothing_and_density_zero_gives_the_base(merge, arrays, rule):
    model, base = arrays[0], arrays[3]
    options = {"base": base, "params": {"rescale": rule}}
    assert np.array_equal(
        merge("dare_linear", [model], sources=[{"density": 1.0, "q": 0.5}], **options), base + (model - base)
    )
    assert np.array_equal(merge("dare_linear", [model], sources=[{"density": 0.0, "q": 0.5}], **options), base)


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2"])
def test_zero_task_vectors_single_elements_and_rows_of_one_give_finite_numbers(merge, rule):
    options = {"sources": [{"density": 0.5}], "params": {"rescale": rule}}
    for shape in ((1,), (5,), (4, 1), (2, 2, 3)):
        base = np.ones(shape, dtype=np.float32)
        assert np.array_equal(merge("dare_linear", [base], base=base, **options).numpy(), base)
        assert np.isfinite(merge("dare_linear", [2 * base], base=base, **options).numpy()).all()


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_q_below_the_density_counts_as_the_density(merge, arrays, method):
    *models, base = arrays
    made = [
        merge(method, models, base=base, sources=[{"density": 0.9, "q": q}] * 3, params={"rescale": rule})
        for rule, q in (("q", 0.01), ("q", 0.9), ("inv_density", 1.0))
    ]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
