from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.merging.methods import task_vector_oracle as oracle

SOURCES = [
    {"weight": 0.6, "density": 0.3},
    {"weight": 1.2, "density": 0.75},
    {"weight": 0.4, "density": 1.0},
]


def trimmed(delta, density):
    """Keep the k largest magnitudes by a stable full sort: equal ones in the order of their index."""
    if density >= 1:
        return delta
    flat = delta.ravel()
    keep = np.argsort(-np.abs(flat), kind="stable")[: max(1, int(density * flat.size))] if density > 0 else []
    out = np.zeros_like(flat)
    out[keep] = flat[keep]
    return out.reshape(delta.shape)


def expected(models, base, sources, factor, normalize):
    weighted = [np.float32(s["weight"]) * trimmed(m - base, s["density"]) for m, s in zip(models, sources, strict=True)]
    total = np.zeros_like(base)
    for tensor in weighted:
        total = total + tensor
    sign = np.where(total >= 0, 1, -1)
    merged, divisor = np.zeros_like(base), np.zeros_like(base)
    for tensor, values in zip(weighted, sources, strict=True):
        agrees = np.sign(tensor) == sign
        merged = merged + np.where(agrees, tensor, np.float32(0))
        divisor = divisor + np.where(agrees, np.float32(values["weight"]), np.float32(0))
    if normalize:
        merged = merged / np.where(divisor == 0, np.float32(1), divisor)
    return base + np.float32(factor) * merged


@pytest.mark.parametrize(("factor", "normalize"), [(1.0, True), (0.6, False), (1.4, True)])
def test_it_trims_elects_and_merges_to_the_last_bit(merge, arrays, factor, normalize):
    out = merge("ties", arrays[:3], base=arrays[3], sources=SOURCES, params={"lambda": factor, "normalize": normalize})
    assert np.array_equal(out.numpy(), expected(arrays[:3], arrays[3], SOURCES, factor, normalize))


def test_bfloat16_sources_full_of_equal_magnitudes_are_cut_at_exactly_k(merge, arrays):
    halves = [torch.tensor(a).bfloat16() for a in arrays]
    out = merge("ties", halves[:3], base=halves[3], sources=SOURCES, dtype=torch.bfloat16)
    wide = [h.float().numpy() for h in halves]
    assert torch.equal(out, torch.tensor(expected(wide[:3], wide[3], SOURCES, 1.0, True)).bfloat16())


def test_a_case_worked_by_hand(merge):
    base = np.float32([10, 10, 10, 10])
    # Half of four are kept. First: +3, +2. Second: -4 and +1 (the first of the two ones).
    models = [base + np.float32([3, 1, 2, -1]), base + np.float32([-4, 0.5, 1, 1])]
    half = [{"weight": 1.0, "density": 0.5}] * 2
    # Votes: -1 elects minus and leaves -4; nothing; +3 elects plus, 2 and 1 agree; nothing.
    assert merge("ties", models, base=base, sources=half).tolist() == [6.0, 10.0, 11.5, 10.0]
    added = merge("ties", models, base=base, sources=half, params={"normalize": False})
    assert added.tolist() == [6.0, 10.0, 13.0, 10.0]


def test_an_even_vote_goes_to_plus(merge):
    out = merge("ties", [np.float32([2.0]), np.float32([-2.0])], base=np.float32([0.0]))
    assert out.tolist() == [2.0]


def test_equal_magnitudes_are_kept_in_the_order_of_their_index(merge):
    delta = np.float32([1, -1, 1, 1, -1, 1, 1, 1])
    out = merge("ties", [delta], base=np.zeros_like(delta), sources=[{"weight": 1.0, "density": 0.5}])
    assert out.tolist() == [1, -1, 1, 1, 0, 0, 0, 0]


def test_ties_across_blocks_are_cut_at_the_same_index(merge):
    delta = np.ones(600_001, dtype=np.float32)
    out = merge("ties", [delta], base=np.zeros_like(delta), sources=[{"weight": 1.0, "density": 0.7}])
    assert np.array_equal(out.numpy(), (np.arange(600_001) < int(0.7 * 600_001)).astype(np.float32))


def test_density_zero_drops_a_source_and_a_tiny_one_keeps_one_entry(merge):
    base = np.zeros(5, dtype=np.float32)
    model = np.float32([1, -5, 2, 4, 3])
    assert merge("ties", [model], base=base, sources=[{"density": 0.0}]).tolist() == base.tolist()
    assert merge("ties", [model], base=base, sources=[{"density": 0.01}]).tolist() == [0, -5, 0, 0, 0]


def test_weights_that_cancel_divide_by_one(merge):
    models = [np.float32([2.0]), np.float32([-2.0])]
    out = merge("ties", models, base=np.float32([0.0]), sources=[{"weight": 1.0}, {"weight": -1.0}])
    assert out.tolist() == [4.0]


@pytest.mark.parametrize("rule", ["none", "l1", "l2", "inv_density"])
@pytest.mark.parametrize("elect", ["weighted", "unweighted"])
def test_votes_may_be_plain_and_what_is_kept_may_be_scaled_up(merge, arrays, elect, rule):
    signed = [{**values, "weight": weight} for values, weight in zip(SOURCES, (0.6, -1.2, 0.4), strict=True)]
    found = []
    for delta, values in zip(oracle.deltas(arrays[:3], arrays[3]), signed, strict=True):
        kept = oracle.top(delta, values["density"])
        if rule == "inv_density":
            kept = kept / values["density"]
        found.append(kept * oracle.norm_ratio(delta, kept, rule) if rule in ("l1", "l2") else kept)
    for normalize in (True, False):
        out = merge(
            "ties",
            arrays[:3],
            base=arrays[3],
            sources=signed,
            params={"elect": elect, "rescale": rule, "normalize": normalize},
        )
        theirs = oracle.elected(arrays[3], found, (0.6, -1.2, 0.4), elect=elect, normalize=normalize)
        oracle.near(out.numpy(), theirs)


def test_an_election_without_weights_worked_by_hand(merge):
    models, base = [np.float32([3, -1]), np.float32([-2, 2])], np.float32([0, 0])
    sources = [{"weight": 1.0}, {"weight": 4.0}]
    # Weighted, the votes are 3 against -8 and -1 against 8; plain, 3 against -2 and -1 against 2.
    assert merge("ties", models, base=base, sources=sources).tolist() == [-2, 2]
    out = merge("ties", models, base=base, sources=sources, params={"elect": "unweighted"})
    assert out.tolist() == [3, 2]


def test_the_papers_own_convention_is_the_mean_of_what_agrees(merge, arrays):
    """Unweighted votes, a disjoint mean, one scale: ties_merging as its authors wrote it, without an even vote."""
    parts = [oracle.top(delta, 0.2) for delta in oracle.deltas(arrays[:3], arrays[3])]
    sign = np.sign(sum(parts))
    agree = [np.where(sign > 0, part > 0, part < 0) for part in parts]
    counted = np.maximum(sum(a.astype(int) for a in agree), 1)
    merged = sum(part * a for part, a in zip(parts, agree, strict=True)) / counted
    params = {"elect": "unweighted", "lambda": 0.4}
    out = merge("ties", arrays[:3], base=arrays[3], sources=[{"density": 0.2}] * 3, params=params)
    oracle.near(out.numpy(), arrays[3] + 0.4 * merged)
