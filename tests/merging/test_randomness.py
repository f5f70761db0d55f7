from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch

from merging.randomness import MaskKey, hash24, keep_mask, mask_key, mix

CPU = torch.device("cpu")
KEY = mask_key(7, "digest", "model.layers.0.mlp.up_proj.weight")
SIZE = 1 << 20

GOLDEN_KEY = (304834896, 1395143497)
GOLDEN_START = [9062974, 6948761, 813377, 5579526, 13916944, 15233675, 10820262, 9326408]
GOLDEN_SIGN = [1699166, 13891649, 16579970, 10577366]
GOLDEN_HIGH = [5645490, 5553505, 4012983, 11683022]
GOLDEN_MIX = [0, 1753845952, 3861431939]


def draw(key: MaskKey, index: int) -> int:
    """The hash of one element in plain integers."""

    def lowbias(x: int, state: int) -> int:
        x ^= x >> 16
        x = (x * 0x7FEB352D) % 2**32 ^ state
        x ^= x >> 15
        x = (x * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    return lowbias((index * 0x9E3779B9 % 2**32) ^ key.index ^ lowbias(index >> 32, 0), key.state) >> 8


def uniform(key: MaskKey, size: int = SIZE) -> np.ndarray:
    return hash24(key, 0, size, CPU).numpy() / 2**24


def test_golden_vectors():
    assert (KEY.index, KEY.state) == GOLDEN_KEY
    assert hash24(KEY, 0, 8, CPU).tolist() == GOLDEN_START
    assert hash24(KEY, 2**31 - 2, 2**31 + 2, CPU).tolist() == GOLDEN_SIGN
    assert hash24(KEY, 2**32 + 5, 2**32 + 9, CPU).tolist() == GOLDEN_HIGH
    assert [mix(word) for word in (0, 1, 0xDEADBEEF)] == GOLDEN_MIX


@pytest.mark.parametrize("start", [0, 1000, 2**31 - 16, 2**32 - 32, 2**32, 3 * 2**32 + 77])
def test_every_index_hashes_as_in_plain_integers(start):
    assert hash24(KEY, start, start + 32, CPU).tolist() == [draw(KEY, i) for i in range(start, start + 32)]


def test_the_key_is_two_words_of_sha256():
    digest = hashlib.sha256(b"3:abc:w").digest()
    assert mask_key(3, "abc", "w") == MaskKey(
        int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
    )
    assert (
        len({mask_key(3, "abc", "w"), mask_key(4, "abc", "w"), mask_key(3, "abd", "w"), mask_key(3, "abc", "v")}) == 4
    )


def test_a_tensor_read_in_pieces_gets_the_mask_of_the_whole():
    whole = keep_mask(KEY, 0, 5000, 0.4, CPU)
    assert torch.equal(torch.cat([keep_mask(KEY, s, min(s + 777, 5000), 0.4, CPU) for s in range(0, 5000, 777)]), whole)


@pytest.mark.parametrize("density", [0.0, 1e-6, 0.1, 0.5, 0.9, 1.0])
def test_the_share_kept_is_the_density(density):
    share = keep_mask(KEY, 0, SIZE, density, CPU).double().mean().item()
    assert share == pytest.approx(density, abs=4 * (density * (1 - density) / SIZE) ** 0.5 + 1e-12)


def test_masks_are_nested_in_density():
    masks = [keep_mask(KEY, 0, 100_000, density, CPU) for density in np.linspace(0, 1, 21)]
    assert all(bool((low <= high).all()) for low, high in itertools.pairwise(masks))


def test_draws_are_uniform():
    values = uniform(KEY)
    assert values.mean() == pytest.approx(0.5, abs=4 / (12 * SIZE) ** 0.5)
    counts = np.bincount((values * 1024).astype(int), minlength=1024)
    assert chi_square_z(counts) < 4


@pytest.mark.parametrize("lag", [1, 2, 3, 16, 32, 64, 100, 128, 256, 512, 1024, 2048, 4096, 11008])
def test_elements_a_column_apart_are_independent(lag):
    for name in ("a", "b", "c"):
        values = uniform(mask_key(7, "digest", name))
        assert chi_square_z(cells(values[:-lag], values[lag:])) < 4.5
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 4.5 / SIZE**0.5


OTHERS = {
    "another tensor": mask_key(7, "digest", "model.layers.1.mlp.up_proj.weight"),
    "another seed": mask_key(8, "digest", "model.layers.0.mlp.up_proj.weight"),
    "another source": mask_key(7, "digest2", "model.layers.0.mlp.up_proj.weight"),
    "the same index word": MaskKey(KEY.index, OTHER_STATE := 0x9E3779B9),
    "one bit apart in the index word": MaskKey(KEY.index ^ 1, OTHER_STATE),
    "overlapping ranges": MaskKey(KEY.index ^ 0x40, OTHER_STATE ^ 0x1234567),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_the_masks_of_two_keys_are_independent(other):
    one, two = uniform(KEY), uniform(other)
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / SIZE**0.5
    assert chi_square_z(cells(one, two)) < 4
    both = np.mean((one < 0.1) & (two < 0.1))
    assert both == pytest.approx(0.01, abs=4 * (0.01 / SIZE) ** 0.5)


def test_many_keys_agree_pairwise_as_often_as_chance():
    size = 20_000
    masks = np.array([keep_mask(mask_key(0, "d", f"t{i}"), 0, size, 0.5, CPU).numpy() for i in range(60)])
    agreement = (masks @ masks.T + (1 - masks) @ (1 - masks).T) / size
    off = agreement[np.triu_indices(60, 1)]
    assert np.abs(off - 0.5).max() < 5 * 0.5 / size**0.5
    assert off.std() == pytest.approx(0.5 / size**0.5, rel=0.15)


def cells(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """How often each of 32 x 32 cells of the unit square is hit."""
    return np.bincount((one * 32).astype(int) * 32 + (two * 32).astype(int), minlength=1024)


def chi_square_z(counts: np.ndarray) -> float:
    """How many standard deviations the chi-square statistic lies from its mean."""
    expected = counts.sum() / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return float(abs(statistic - freedom) / (2 * freedom) ** 0.5)
