from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.randomness import hash24, mask_key
from tests.merging.methods import task_vector_oracle as oracle

SEED = 5
SOURCES = [
    {"weight": 0.6, "density": 0.3},
    {"weight": 1.2, "density": 0.75},
    {"weight": 0.4, "density": 1.0},
]


def mask(source, size, density):
    draws = hash24(mask_key(SEED, str(source), "weight"), 0, size, torch.device("cpu")).numpy() / 2**24
    return (draws < density).astype(np.float32)


def expected(models, base, sources, rule, factor=1.0, normalize=False):
    weighted = []
    for number, (model, values) in enumerate(zip(models, sources, strict=True)):
        delta, density = model - base, values["density"]
        if density < 1:
            kept = delta * mask(number, delta.size, density).reshape(delta.shape)
            before, after = (np.abs(d.astype(np.float64)).sum() for d in (delta, kept))
            ratio = {"inv_density": 1 / density, "l1": before / after, "none": 1.0}[rule]
            delta = kept * np.float32(ratio)
        weighted.append(np.float32(values["weight"]) * delta)
    total = sum(weighted[1:], weighted[0])
    sign = np.where(total >= 0, 1, -1)
    merged, divisor = np.zeros_like(base), np.zeros_like(base)
    for tensor, values in zip(weighted, sources, strict=True):
        agrees = np.sign(tensor) == sign
        merged = merged + np.where(agrees, tensor, np.float32(0))
        divisor = divisor + np.where(agrees, np.float32(values["weight"]), np.float32(0))
    if normalize:
        merged = merged / np.where(divisor == 0, np.float32(1), divisor)
    return base + np.float32(factor) * merged


@pytest.mark.parametrize(
    ("rule", "factor", "normalize"), [("inv_density", 1.0, False), ("none", 0.6, False), ("inv_density", 1.0, True)]
)
def test_it_drops_rescales_elects_and_merges_to_the_last_bit(merge, arrays, rule, factor, normalize):
    params = {"rescale": rule, "lambda": factor, "normalize": normalize}
    out = merge("dare_ties", arrays[:3], base=arrays[3], sources=SOURCES, params=params)
    assert np.array_equal(out.numpy(), expected(arrays[:3], arrays[3], SOURCES, rule, factor, normalize))


def test_the_l1_rule_restores_the_norm_that_was_dropped(merge, arrays):
    out = merge("dare_ties", arrays[:3], base=arrays[3], sources=SOURCES, params={"rescale": "l1"})
    np.testing.assert_allclose(out.numpy(), expected(arrays[:3], arrays[3], SOURCES, "l1"), rtol=1e-6, atol=1e-6)
    zero = np.zeros_like(arrays[3])
    alone = merge("dare_ties", arrays[:1], base=zero, sources=[{"density": 0.3}], params={"rescale": "l1"})
    norms = [np.abs(a.astype(np.float64)).sum() for a in (alone.numpy(), arrays[0])]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_bfloat16_is_rounded_once_at_the_end(merge, arrays):
    halves = [torch.tensor(a).bfloat16() for a in arrays]
    out = merge("dare_ties", halves[:3], base=halves[3], sources=SOURCES, dtype=torch.bfloat16)
    wide = [h.float().numpy() for h in halves]
    assert torch.equal(out, torch.tensor(expected(wide[:3], wide[3], SOURCES, "inv_density")).bfloat16())


def test_a_mask_of_lower_density_lies_inside_that_of_a_higher_one(merge, arrays):
    def kept(density):
        out = merge(
            "dare_ties", [np.ones_like(arrays[0])], base=np.zeros_like(arrays[0]), sources=[{"density": density}]
        )
        return out.numpy() != 0

    low, middle, high = kept(0.2), kept(0.5), kept(0.9)
    assert low.sum() < middle.sum() < high.sum()
    assert not (low & ~middle).any()
    assert not (middle & ~high).any()


def test_another_seed_draws_another_mask(merge, arrays):
    args = {"base": np.zeros_like(arrays[0]), "sources": [{"density": 0.5}]}
    one, two = (merge("dare_ties", [np.ones_like(arrays[0])], seed=seed, **args).numpy() != 0 for seed in (1, 2))
    assert np.mean(one == two) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("rule", ["inv_density", "l1", "none"])
def test_density_one_changes_nothing_and_density_zero_gives_the_base(merge, arrays, rule):
    model, base = arrays[0], arrays[3]
    whole = merge("dare_ties", [model], base=base, sources=[{"density": 1.0}], params={"rescale": rule})
    assert np.array_equal(whole.numpy(), base + (model - base))
    nothing = merge("dare_ties", [model], base=base, sources=[{"density": 0.0}], params={"rescale": rule})
    assert np.array_equal(nothing.numpy(), base)


def test_a_tensor_of_which_nothing_is_kept_is_the_base(merge):
    out = merge(
        "dare_ties", [np.float32([3.0])], base=np.float32([1.0]), sources=[{"density": 1e-7}], params={"rescale": "l1"}
    )
    assert out.tolist() == [1.0]


@pytest.mark.parametrize("rule", ["inv_density", "l1", "l2", "q", "none"])
@pytest.mark.parametrize("elect", ["weighted", "unweighted"])
def test_votes_may_be_plain_and_every_rule_of_rescaling_is_there(merge, arrays, elect, rule):
    sources = [
        {**values, "weight": w, "q": q} for values, w, q in zip(SOURCES, (0.6, -1.2, 0.4), (0.5, 0.8, 0.1), strict=True)
    ]
    parts = []
    for number, (delta, values) in enumerate(zip(oracle.deltas(arrays[:3], arrays[3]), sources, strict=True)):
        density = values["density"]
        kept = np.where(oracle.drawn(number, delta.shape) < density, delta, 0)
        if density < 1:
            fixed = {"inv_density": 1 / density, "q": 1 / values["q"], "none": 1.0}
            kept = kept * (fixed.get(rule) or oracle.norm_ratio(delta, kept, rule))
        parts.append(kept)
    params = {"elect": elect, "rescale": rule, "normalize": True}
    out = merge("dare_ties", arrays[:3], base=arrays[3], sources=sources, params=params)
    oracle.near(out.numpy(), oracle.elected(arrays[3], parts, (0.6, -1.2, 0.4), elect=elect, normalize=True))
