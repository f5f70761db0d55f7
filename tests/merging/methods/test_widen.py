from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.kernels import Inputs
from merging.methods import method_of
from merging.methods.widen import kernel

NAMES = ("above_average_value_ratio", "score_calibration_value")


def scores(significance, ratio, calibrated):
    soft = np.exp(significance) / np.exp(significance).sum(axis=0)
    soft[significance > ratio * significance.mean(axis=1, keepdims=True)] = calibrated
    return soft


def ranks(change):
    found = np.empty_like(change)
    for row, values in zip(found, change, strict=True):
        row[np.argsort(values, kind="stable")] = np.arange(values.size) / values.size
    return found


def oracle(models, base, ratio=1.0, calibrated=1.0, rows=False):
    """The paper's procedure in float64."""
    models, base = [m.astype(np.float64) for m in models], base.astype(np.float64)
    if rows:
        return oracle([m.T for m in models], base.T, ratio, calibrated).T
    deltas = [m - base for m in models]
    if base.ndim == 1:
        weights = scores(np.abs(deltas), ratio, calibrated)
    else:
        norms = [np.linalg.norm(m, axis=0) for m in (*models, base)]
        magnitudes = np.stack([np.abs(n - norms[-1]) for n in norms[:-1]])
        cosines = [(m * base).sum(axis=0) / (n * norms[-1]) for m, n in zip(models, norms[:-1], strict=True)]
        directions = 1 - np.stack(cosines)
        weights = (scores(ranks(magnitudes), ratio, calibrated) + scores(ranks(directions), ratio, calibrated)) / 2
    return base + sum(w * d for w, d in zip(weights, deltas, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("ratio", "calibrated"), [(1.0, 1.0), (0.5, 0.7), (1.8, 0.3)])
def test_a_matrix_is_merged_column_by_column_as_in_the_paper(merge, arrays, count, ratio, calibrated):
    params = dict(zip(NAMES, (ratio, calibrated), strict=True))
    out = merge("widen", arrays[:count], base=arrays[3], params=params).numpy()
    np.testing.assert_allclose(out, oracle(arrays[:count], arrays[3], ratio, calibrated), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("ratio", "calibrated"), [(1.0, 1.0), (1.5, 0.4)])
def test_a_vector_is_merged_element_by_element(merge, arrays, ratio, calibrated):
    *models, base = (array[0] for array in arrays)
    params = dict(zip(NAMES, (ratio, calibrated), strict=True))
    out = merge("widen", models, base=base, params=params).numpy()
    np.testing.assert_allclose(out, oracle(models, base, ratio, calibrated), rtol=0, atol=1e-6)


def named(name, models, base):
    """What the kernel makes of a tensor of that name: the step's fields."""
    tensors = [torch.as_tensor(array).reshape(-1) for array in (*models, base)]
    params = {spec.name: spec.default for spec in method_of("widen").info.params}
    return kernel(
        Inputs(
            tensors=tuple(tensors),
            shape=base.shape,
            name=name,
            base=len(models),
            params=params,
            source_params=({},) * len(tensors),
            keys=(),
            content=tuple(map(str, range(len(tensors)))),
        )
    ).fields


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight"])
def test_an_embedding_is_merged_token_by_token(arrays, name):
    *models, base = (array[:60, :40] for array in arrays)
    fields = named(name, models, base)
    assert {tuple(field.shape) for field in fields} == {(60, 1)}
    out = base + sum(field.numpy() * (model - base) for field, model in zip(fields, models, strict=True))
    np.testing.assert_allclose(out, oracle(models, base, rows=True), rtol=0, atol=1e-6)


def test_a_head_is_a_matrix_like_others(arrays):
    *models, base = (array[:60, :40] for array in arrays)
    assert {tuple(field.shape) for field in named("lm_head.weight", models, base)} == {(1, 40)}


def test_two_columns_worked_by_hand(merge):
    base = np.float32([[1, 0], [0, 1]])
    # a turns and stretches its first column, b its second: ranks 1/2 and 0, of which 1/2 is above the mean 1/4.
    a, b = np.float32([[1, 0], [1, 1]]), np.float32([[1, 1], [0, 1]])
    soft = 1 / (1 + np.exp(0.5))
    out = merge("widen", [a, b], base=base, params={NAMES[1]: 0.75}).numpy()
    np.testing.assert_allclose(out, [[1, 0.75], [0.75, 1]], rtol=1e-6)
    out = merge("widen", [a, b + np.float32([[0.125, 0], [0, 0]])], base=base, params={NAMES[1]: 0.75}).numpy()
    # Now b's first column has changed a little as well, below its average: it counts by softmax.
    np.testing.assert_allclose(out[0, 0], 1 + soft * 0.125, rtol=1e-6)


def test_columns_of_zeros_turn_only_where_something_comes_or_goes(merge):
    base = np.float32([[0, 1, 0], [0, 1, 0]])
    model = np.float32([[0, 2, 3], [0, 2, 3]])
    out = merge("widen", [model], base=base, params={NAMES[1]: 0.5}).numpy()
    # Magnitudes rank 0, 1/3, 2/3 (mean 1/3), directions 0 (still), 1/3 (parallel), 2/3 (new); one model's softmax is 1.
    assert out.tolist() == [[0, 2, 1.5], [0, 2, 1.5]]


def test_columns_that_change_alike_are_ranked_by_their_index(merge):
    base = np.zeros((2, 4), np.float32)
    out = merge("widen", [base + 1], base=base, params={NAMES[1]: 0.5})
    assert out.tolist() == [[1, 1, 0.5, 0.5]] * 2
