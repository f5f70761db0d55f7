"""What the methods on task vectors do, in NumPy and float64, from sorts over whole tensors.

Task vectors are taken in float32, as the methods take them: which entries are kept hangs on that rounding.
"""

from __future__ import annotations

import numpy as np
import torch

from merging.randomness import hash24, mask_key

SEED = 5


def deltas(models, base):
    return [(np.float32(model) - np.float32(base)).astype(np.float64) for model in models]


def largest_first(flat):
    """Places by descending magnitude, equal ones in the order of their index."""
    return np.argsort(-np.abs(flat), kind="stable")


def count_of(size, density):
    return 0 if density <= 0 else min(size, max(1, int(density * size)))


def only(array, places):
    out = np.zeros(array.size)
    out[places] = array.ravel()[places]
    return out.reshape(array.shape)


def top(delta, density):
    """The largest share."""
    return only(delta, largest_first(delta.ravel())[: count_of(delta.size, density)])


def middle(delta, density, gamma):
    """Without the largest, and without the smallest."""
    kept = count_of(delta.size, density)
    first = min(int(gamma * delta.size), delta.size - kept)
    return only(delta, largest_first(delta.ravel())[first : first + kept])


def rows(array):
    return array.reshape(-1, array.shape[-1] if array.ndim else 1)


def by_row(delta, thin):
    return np.stack([thin(row) for row in rows(delta)]).reshape(delta.shape)


def row_ranks(delta):
    """From 0, the smallest of a row; of equal ones the first is the largest."""
    ranks = np.empty(rows(delta).shape, dtype=np.int64)
    for row, own in zip(rows(delta), ranks, strict=True):
        own[largest_first(row)] = np.arange(row.size)[::-1]
    return ranks.reshape(delta.shape)


def chances(delta, density, epsilon):
    size = rows(delta).shape[1]
    reach = min(epsilon, density, 1 - density) if size > 1 else 0.0
    return density - reach + 2 * reach * row_ranks(delta) / max(size - 1, 1)


def drawn(source, shape):
    """The uniform numbers of a source's tensor."""
    key = mask_key(SEED, str(source), "weight")
    return hash24(key, 0, int(np.prod(shape)), torch.device("cpu")).numpy().reshape(shape) / 2**24


def norm_ratio(delta, kept, rule):
    power = {"l1": 1, "l2": 2}[rule]
    before, after = ((np.abs(array) ** power).sum() ** (1 / power) for array in (delta, kept))
    return before / after if after else 1.0


def elected(base, thinned, weights, *, elect="weighted", normalize=False, factor=1.0):
    weighted = [weight * part for weight, part in zip(weights, thinned, strict=True)]
    votes = weighted if elect == "weighted" else thinned
    sign = np.where(sum(votes) >= 0, 1, -1)
    agree = [np.sign(vote) == sign for vote in votes]
    merged = sum(np.where(a, w, 0) for a, w in zip(agree, weighted, strict=True))
    if normalize:
        divisor = sum(np.where(a, w, 0) for a, w in zip(agree, weights, strict=True))
        merged = merged / np.where(divisor == 0, 1, divisor)
    return base + factor * merged


def added_up(base, thinned, weights, *, normalize=False, factor=1.0):
    total = sum(weight * part for weight, part in zip(weights, thinned, strict=True))
    return base + factor * total / (sum(weights) if normalize else 1)


def near(ours, theirs):
    """Equal up to what float32 rounds."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
