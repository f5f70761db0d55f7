from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.7])
def test_the_signature_is_the_part_at_right_angles_to_the_standard_task_vector(merge, arrays, alpha):
    plain, robust, _, base = (array.astype(np.float64) for array in arrays)
    d_s, d_r = plain - base, robust - base
    signature = d_r - (d_r * d_s).sum() / (d_s * d_s).sum() * d_s
    out = merge("rws", arrays[:2], base=arrays[3], params={"alpha": alpha}).numpy()
    np.testing.assert_allclose(out, plain + alpha * signature, rtol=0, atol=1e-6)


def test_a_signature_worked_by_hand(merge):
    base, plain, robust = np.float32([1, 1, 1]), np.float32([3, 1, 1]), np.float32([2, 4, 1])
    # D_s = (2, 0, 0), D_r = (1, 3, 0): what is left of D_r is (0, 3, 0).
    assert merge("rws", [plain, robust], base=base, params={"alpha": 0.5}).tolist() == [3, 2.5, 1]


def test_without_a_standard_task_vector_the_whole_robust_one_is_the_signature(merge):
    base, robust = np.float32([1, 2]), np.float32([2, 0])
    assert merge("rws", [base, robust], base=base).tolist() == robust.tolist()


def test_a_robust_model_that_is_the_standard_one_adds_nothing(merge):
    base, plain = np.float32([1, 2, 0]), np.float32([2, 0, 5])
    assert merge("rws", [plain, plain], base=base).tolist() == plain.tolist()


def test_beyond_the_shallow_layers_the_standard_model_comes_back_byte_for_byte(merge, arrays):
    out = merge("rws", arrays[:2], base=arrays[3], params={"layers": 0.0}).numpy()
    assert np.array_equal(out, arrays[0])


def test_layers_is_a_share_of_the_stack_from_the_embedding_up(family):
    def patched(share):
        recipe = family.merge("rws", ("a", "b"), layers=share)
        return [{g.params["layers"] for g in entry.groups} for entry in (recipe.embed, *recipe.layers, recipe.head)]

    assert patched(0.5) == [{1.0}, {1.0}, {1.0}, {0.0}, {0.0}, {0.0}]
    assert patched(0.0) == [{0.0}] * 6
    assert patched(1.0) == [{1.0}] * 6


def test_raising_the_share_leaves_the_layers_below_it_as_they_were(family):
    low, high = (family.merge("rws", ("a", "b"), layers=share).layer_keys() for share in (0.5, 0.75))
    assert [one == other for one, other in zip(low, high, strict=True)] == [True, True, False, True]


def test_which_source_is_the_robust_one_is_searched_both_ways():
    from core.space import SearchSpace, SpaceSpec

    family = {"family": "merge", "methods": ["rws"], "base": "base"}
    compiled = SearchSpace(SpaceSpec.model_validate({"families": [family]}), ("base", "a", "b"), depth=4)
    assert [hole.name for hole in compiled.holes] == ["merge.rws.pair", "merge.rws.alpha", "merge.rws.layers"]
    assert compiled.holes[0].spec.choices == ("a|b", "b|a")
