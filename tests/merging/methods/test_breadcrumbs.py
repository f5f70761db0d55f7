from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.outliers import bounds
from tests.merging.methods.task_vector_oracle import added_up, by_row, deltas, middle, near, norm_ratio

SOURCES = [
    {"weight": 0.6, "density": 0.3, "gamma": 0.01},
    {"weight": 1.2, "density": 0.75, "gamma": 0.4},
    {"weight": -0.4, "density": 1.0, "gamma": 0.1},
]
WEIGHTS = [values["weight"] for values in SOURCES]


def thinned(models, base, outliers, rule, sources=SOURCES):
    found = []
    for delta, values in zip(deltas(models, base), sources, strict=True):
        density, gamma = values["density"], values["gamma"]
        if outliers == "row":
            kept = by_row(delta, lambda row, d=density, g=gamma: middle(row, d, g))
        else:
            kept = middle(delta, density, gamma)
        if rule == "inv_density":
            kept = kept / density
        elif rule != "none":
            kept = kept * norm_ratio(delta, kept, rule)
        found.append(kept)
    return found


@pytest.mark.parametrize("rule", ["none", "l1", "l2", "inv_density"])
@pytest.mark.parametrize("outliers", ["tensor", "row"])
def test_it_drops_both_ends_and_adds_up(merge, arrays, outliers, rule):
    arrays = [array[:70] for array in arrays]
    for factor, normalize in ((1.0, False), (0.7, True)):
        params = {"outliers": outliers, "rescale": rule, "lambda": factor, "normalize": normalize}
        out = merge("breadcrumbs", arrays[:3], base=arrays[3], sources=SOURCES, params=params)
        parts = thinned(arrays[:3], arrays[3], outliers, rule)
        near(out.numpy(), added_up(arrays[3], parts, WEIGHTS, normalize=normalize, factor=factor))


def test_a_case_worked_by_hand(merge):
    base = np.full((2, 5), 10, dtype=np.float32)
    change = np.float32([[1, -9, 3, -2, 0], [8, 4, -7, 5, 6]])
    values = {"density": 0.4, "gamma": 0.2}
    # Of ten, the two largest (-9, 8) go and the next four (-7, 6, 5, 4) stay.
    out = merge("breadcrumbs", [base + change], base=base, sources=[values])
    assert (out.numpy() - base).tolist() == [[0, 0, 0, 0, 0], [0, 4, -7, 5, 6]]
    # Of each five, the largest goes and the next two stay.
    out = merge("breadcrumbs", [base + change], base=base, sources=[values], params={"outliers": "row"})
    assert (out.numpy() - base).tolist() == [[0, 0, 3, -2, 0], [0, 0, -7, 0, 6]]


def test_outliers_make_way_for_the_density_and_something_is_always_kept():
    assert bounds(10, 0.4, 0.2) == (4, 8)
    assert bounds(10, 0.9, 0.2) == (0, 9)
    assert bounds(10, 1.0, 0.5) == (0, 10)
    assert bounds(10, 0.01, 0.0) == (9, 10)
    assert bounds(10, 0.01, 1.0) == (0, 1)
    assert bounds(10, 0.0, 0.1) == (9, 9)
    assert bounds(1, 0.3, 0.5) == (0, 1)


@pytest.mark.parametrize("gamma", [0.0, 0.001])
def test_without_outliers_to_drop_the_largest_changes_stay(merge, gamma):
    """Not so in mergekit 0.1.4, which lost the whole change of such tensors."""
    base, model = np.zeros(50, np.float32), np.arange(50, dtype=np.float32)
    out = merge("breadcrumbs", [model], base=base, sources=[{"density": 0.2, "gamma": gamma}])
    assert out.tolist() == [0.0] * 40 + list(range(40, 50))


@pytest.mark.parametrize("outliers", ["tensor", "row"])
def test_of_equal_magnitudes_the_first_count_as_the_largest(merge, outliers):
    change = np.float32([[1, -1, 1, 1, -1, 1, 1, 1]])
    values = {"density": 0.5, "gamma": 0.25}
    out = merge("breadcrumbs", [change], base=0 * change, sources=[values], params={"outliers": outliers})
    assert out.tolist() == [[0, 0, 1, 1, -1, 1, 0, 0]]


@pytest.mark.parametrize("outliers", ["tensor", "row"])
def test_bfloat16_sources_full_of_equal_magnitudes_are_cut_at_exactly_k(merge, arrays, outliers):
    halves = [torch.tensor(array[:70]).bfloat16() for array in arrays]
    wide = [half.float().numpy() for half in halves]
    out = merge(
        "breadcrumbs", halves[:3], base=halves[3], sources=SOURCES, params={"outliers": outliers}, dtype=torch.float32
    )
    near(out.numpy(), added_up(wide[3], thinned(wide[:3], wide[3], outliers, "none"), WEIGHTS))


@pytest.mark.parametrize("rule", ["none", "l1", "inv_density"])
@pytest.mark.parametrize("outliers", ["tensor", "row"])
def test_density_one_changes_nothing_and_density_zero_gives_the_base(merge, arrays, outliers, rule):
    model, base = arrays[0][:40], arrays[3][:40]
    options = {"base": base, "params": {"outliers": outliers, "rescale": rule}}
    whole = merge("breadcrumbs", [model], sources=[{"density": 1.0, "gamma": 0.3}], **options)
    assert np.array_equal(whole.numpy(), base + (model - base))
    assert np.array_equal(merge("breadcrumbs", [model], sources=[{"density": 0.0}], **options).numpy(), base)
    assert np.array_equal(merge("breadcrumbs", [base], sources=[{"density": 0.5}], **options).numpy(), base)


@pytest.mark.parametrize("outliers", ["tensor", "row"])
def test_vectors_are_one_row_and_single_elements_are_kept(merge, outliers):
    options = {"sources": [{"density": 0.4, "gamma": 0.2}], "params": {"outliers": outliers}}
    vector = np.float32([1, -9, 3, -2, 5])
    assert merge("breadcrumbs", [vector], base=0 * vector, **options).tolist() == [0, 0, 3, 0, 5]
    assert merge("breadcrumbs", [np.float32([3])], base=np.float32([1]), **options).tolist() == [3]
