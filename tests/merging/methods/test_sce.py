from __future__ import annotations

import numpy as np
import pytest
import torch

from merging import magnitudes
from merging.methods.sce import kernel, spread
from merging.reductions import TREE
from tests.merging.methods.task_vector_oracle import count_of, deltas, elected, largest_first, near, only


def selected(parts, topk):
    """The task vectors where they differ most; by the variance as it is in float32."""
    variance = spread([torch.tensor(part.astype(np.float32)) for part in parts]).numpy()
    count = count_of(np.count_nonzero(variance), topk)
    if topk >= 1 or not variance.any():
        return parts
    places = largest_first(variance.ravel())[:count]
    return [only(part, places) for part in parts]


def expected(models, base, topk):
    parts = selected(deltas(models, base), topk)
    squares = np.array([(part**2).sum() for part in parts])
    weights = squares / squares.sum() if squares.any() else np.full(len(parts), 1 / len(parts))
    return elected(base, parts, list(weights), elect="unweighted", normalize=True)


@pytest.mark.parametrize("topk", [1.0, 0.8, 0.35, 1e-9, 0.0])
@pytest.mark.parametrize("sources", [2, 3])
def test_it_selects_calculates_and_erases(merge, arrays, topk, sources):
    scaled = [arrays[3] + (i + 1) * (array - arrays[3]) for i, array in enumerate(arrays[:sources])]
    out = merge("sce", scaled, base=arrays[3], params={"select_topk": topk})
    near(out.numpy(), expected(scaled, arrays[3], topk))


def test_a_case_worked_by_hand(merge):
    base = np.float32([10, 10, 10, 10])
    models = [base + np.float32([3, 1, 0, 2]), base + np.float32([-1, 1, 4, 2])]
    # Squares: 14 and 22. The first element: 2 in all, so plus, and the second model is erased.
    out = merge("sce", models, base=base).numpy()
    np.testing.assert_allclose(out, [13, 11, 14, 12], rtol=1e-6)
    # They differ at two elements (by 4 both); half of two is one, the first. Squares there: 9 and 1.
    assert merge("sce", models, base=base, params={"select_topk": 0.5}).tolist() == [13, 10, 10, 10]
    # With both, squares are 9 and 17.
    assert merge("sce", models, base=base, params={"select_topk": 0.999}).tolist() == [13, 10, 10, 10]


def test_weights_are_shares_of_the_squared_changes(merge):
    base = np.zeros(4, np.float32)
    models = [np.float32([1, 1, 1, 1]), np.float32([3, 3, 3, 3])]
    assert merge("sce", models, base=base).tolist() == pytest.approx([0.1 + 2.7] * 4, rel=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_size_of_the_changes_does_not_matter(merge, size):
    """In mergekit a mean square below 1e-6 makes all weights equal: fine-tunes of a real base never reach it."""
    generator = np.random.default_rng(3)
    changes = [generator.normal(size=300) * scale for scale in (1, 4)]
    base = np.zeros(300, np.float32)
    one = merge("sce", [change.astype(np.float32) for change in changes], base=base).numpy()
    other = merge("sce", [(change * size).astype(np.float32) for change in changes], base=base).numpy()
    np.testing.assert_allclose(other / np.float32(size), one, rtol=2e-5, atol=1e-5)


def test_a_source_alone_in_its_sign_keeps_its_change_whatever_its_weight(merge):
    base = np.zeros(3, np.float32)
    models = [np.float32([1e-4, 0, 0]), np.float32([0, 100, -100])]
    assert merge("sce", models, base=base).tolist() == [np.float32(1e-4), 100, -100]


@pytest.mark.parametrize("topk", [0.1, 0.9])
def test_where_no_model_differs_from_another_nothing_is_erased(merge, arrays, topk):
    model, base = arrays[0], arrays[3]
    for models in ([model], [model, model, model]):
        out = merge("sce", models, base=base, params={"select_topk": topk})
        np.testing.assert_allclose(out.numpy(), base + (model - base), rtol=0, atol=1e-6)
    assert np.array_equal(merge("sce", [base, base], base=base, params={"select_topk": topk}).numpy(), base)


def test_equal_variances_are_selected_in_the_order_of_their_index(merge):
    base = np.zeros(6, np.float32)
    models = [np.float32([1, 1, -1, 1, 1, 1]), np.float32([3, 3, -3, 3, 3, 3])]
    out = merge("sce", models, base=base, params={"select_topk": 0.5})
    assert np.count_nonzero(out.numpy()[:3]) == 3
    assert not out.numpy()[3:].any()


@pytest.mark.parametrize("topk", [0.2, 0.6])
def test_with_and_without_room_to_keep_the_order_the_weights_are_the_same_to_the_last_bit(
    inputs_of, arrays, monkeypatch, topk
):
    monkeypatch.setattr(magnitudes, "SMALL", 0)
    assert arrays[0].size > 2 * TREE
    steps = [kernel(inputs_of(arrays[:2], arrays[3], room=room, select_topk=topk)) for room in (0, 1 << 28)]
    assert steps[0].numbers == steps[1].numbers
    assert steps[0].words[0] == steps[1].words[0]


def test_vectors_and_single_elements(merge):
    assert merge("sce", [np.float32([3.0])], base=np.float32([1.0]), params={"select_topk": 0.5}).tolist() == [3.0]
    models = [np.float32([3.0]), np.float32([5.0])]
    out = merge("sce", models, base=np.float32([1.0]), params={"select_topk": 0.5})
    assert out.item() == pytest.approx(1 + (4 * 2 + 16 * 4) / 20)
