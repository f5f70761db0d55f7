from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from merging.rank_dropping import chance_line
from merging.ranks import row_ranks as ranks_of
from tests.merging.methods.task_vector_oracle import chances, deltas, drawn, elected, near, norm_ratio, row_ranks

SOURCES = [
    {"weight": 0.6, "density": 0.3, "epsilon": 0.15},
    {"weight": 1.2, "density": 0.75, "epsilon": 0.4},
    {"weight": 0.4, "density": 1.0, "epsilon": 0.2},
]
WEIGHTS = [values["weight"] for values in SOURCES]


def thinned(models, base, rule, sources=SOURCES):
    found = []
    for number, (delta, values) in enumerate(zip(deltas(models, base), sources, strict=True)):
        chance = chances(delta, values["density"], values["epsilon"])
        kept = np.where(drawn(number, delta.shape) < chance, delta, 0)
        if rule == "inv_density":
            kept = kept / np.where(chance > 0, chance, 1)
        elif rule != "none" and values["density"] < 1:
            kept = kept * norm_ratio(delta, kept, rule)
        found.append(kept)
    return found


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2", "none"])
@pytest.mark.parametrize("elect", ["weighted", "unweighted"])
def test_it_drops_by_rank_rescales_elects_and_merges(merge, arrays, rule, elect):
    arrays = [array[:60] for array in arrays]
    params = {"rescale": rule, "elect": elect, "lambda": 0.8}
    out = merge("della", arrays[:3], base=arrays[3], sources=SOURCES, params=params)
    parts = thinned(arrays[:3], arrays[3], rule)
    near(out.numpy(), elected(arrays[3], parts, WEIGHTS, elect=elect, normalize=True, factor=0.8))


def test_a_case_worked_by_hand(merge):
    base, change = np.zeros((1, 5), np.float32), np.float32([[1, -5, 3, 2, 4]])
    # Ranks 0, 4, 2, 1, 3: chances 0.2, 0.6, 0.4, 0.3, 0.5.
    chance = np.array([[0.2, 0.6, 0.4, 0.3, 0.5]])
    assert np.allclose(chances(change, 0.4, 0.2), chance)
    kept = drawn(0, (1, 5)) < chance
    out = merge("della", [change], base=base, sources=[{"density": 0.4, "epsilon": 0.2}])
    np.testing.assert_allclose(out.numpy(), np.where(kept, change / chance, 0), rtol=1e-6)


def test_large_changes_survive_more_often_and_the_density_is_the_share_that_is_kept(merge):
    change = np.tile(np.linspace(0.1, 1.0, 100, dtype=np.float32), (3000, 1))
    values = {"density": 0.5, "epsilon": 0.3}
    out = merge("della", [change], base=np.zeros_like(change), sources=[values], params={"rescale": "none"}).numpy()
    share = (out != 0).mean(axis=0)
    np.testing.assert_allclose(share, np.linspace(0.2, 0.8, 100), atol=0.05)
    assert share.mean() == pytest.approx(0.5, abs=0.005)
    # Divided by its own chance, every entry is itself on average.
    scaled = merge("della", [change], base=np.zeros_like(change), sources=[values]).numpy().mean(axis=0)
    np.testing.assert_allclose(scaled, change[0], rtol=0.15)


def test_a_mask_of_lower_density_lies_inside_that_of_a_higher_one(merge, arrays):
    model, base = arrays[0][:50], np.zeros_like(arrays[0][:50])

    def kept(density):
        values = {"density": density, "epsilon": 0.15}
        return merge("della", [model], base=base, sources=[values]).numpy() != 0

    masks = [kept(density) for density in np.linspace(0, 1, 21)]
    assert not masks[0].any()
    assert masks[-1].all()
    for low, high in itertools.pairwise(masks):
        assert low.sum() < high.sum()
        assert not (low & ~high).any()


def test_epsilon_makes_way_where_the_density_leaves_no_room():
    assert chance_line(0.1, 0.15, 3) == (0.0, 0.1 * 2**24)
    assert chance_line(0.95, 0.15, 3) == pytest.approx((0.9 * 2**24, 0.05 * 2**24))
    assert chance_line(1.0, 0.15, 3) == (2.0**24, 0.0)
    assert chance_line(0.4, 0.0, 3) == (0.4 * 2**24, 0.0)


def test_the_only_element_of_a_row_has_the_density_for_its_chance(merge):
    assert chance_line(0.4, 0.15, 1) == (0.4 * 2**24, 0.0)
    base = np.zeros((20_000, 1), np.float32)
    out = merge("della", [base + 1], base=base, sources=[{"density": 0.4}], params={"rescale": "none"}).numpy()
    assert out.mean() == pytest.approx(0.4, abs=0.02)


def test_a_vector_is_one_row_and_a_cube_has_rows_along_its_last_dimension(merge):
    generator = np.random.default_rng(2)
    for shape in ((301,), (4, 5, 6), (1,)):
        base, model = (generator.normal(size=shape).astype(np.float32) for _ in range(2))
        values = {"weight": 1.0, "density": 0.5, "epsilon": 0.3}
        out = merge("della", [model], base=base, sources=[values])
        near(out.numpy(), base + thinned([model], base, "inv_density", [values])[0])


def test_ranks_count_from_the_smallest_and_of_equal_ones_the_first_is_the_largest(inputs_of):
    change = np.float32([[2, -2, 0, 5, 2], [0, 0, 0, 0, 0]])
    assert (
        ranks_of(inputs_of([change], np.zeros_like(change)), 0).tolist()
        == [[3, 2, 0, 4, 1], [4, 3, 2, 1, 0]]
        == row_ranks(change).tolist()
    )


@pytest.mark.parametrize(("columns", "dtype"), [(300, torch.int16), (32_768, torch.int16), (32_769, torch.int32)])
def test_ranks_of_long_rows_take_as_many_bits_as_they_need(inputs_of, columns, dtype):
    change = np.random.default_rng(0).normal(size=(2, columns)).astype(np.float32)
    found = ranks_of(inputs_of([change], np.zeros_like(change)), 0)
    assert found.dtype == dtype
    assert np.array_equal(found.numpy(), row_ranks(change))


def test_ranks_are_taken_once_per_source_and_whatever_the_candidate(inputs_of):
    change = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    inputs = inputs_of([change], np.zeros_like(change))
    first, second = ranks_of(inputs, 0), ranks_of(inputs, 0)
    assert first.data_ptr() == second.data_ptr()


def test_bfloat16_is_rounded_once_at_the_end(merge, arrays):
    halves = [torch.tensor(array[:80]).bfloat16() for array in arrays]
    narrow = merge("della", halves[:3], base=halves[3], sources=SOURCES, dtype=torch.bfloat16)
    wide = merge("della", [half.float() for half in halves[:3]], base=halves[3].float(), sources=SOURCES)
    assert torch.equal(narrow, wide.bfloat16())


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2", "none"])
def test_density_one_changes_nothing_and_density_zero_gives_the_base(merge, arrays, rule):
    model, base = arrays[0][:40], arrays[3][:40]
    options = {"base": base, "params": {"rescale": rule}}
    assert np.array_equal(merge("della", [model], sources=[{"density": 1.0}], **options).numpy(), base + (model - base))
    assert np.array_equal(merge("della", [model], sources=[{"density": 0.0}], **options).numpy(), base)
    assert np.array_equal(merge("della", [base], sources=[{"density": 0.5}], **options).numpy(), base)
