"""Masks that any worker draws alike: one counter-based hash per element, no generator state.

The hash is a 32-bit mix with two multiplications in wrapping int32 arithmetic, so CPU and GPU agree. An element's
index is first spread by an odd multiplier (a Weyl sequence): without it, elements a power of two apart, such as
neighbours in a column, are measurably correlated. The key comes from sha256(recipe seed, source digest, tensor name):
its first 32 bits are xored into the spread index, the next 32 bits into the state between the two multiplications, so
that two tensors never see shifted copies of one sequence. Indices beyond 2^32 mix their high word into the key. The
top 24 bits of an element's hash are compared with density * 2^24, so a mask of a lower density lies inside the mask
of a higher one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

SPREAD = 0x9E3779B9
FIRST, SECOND = 0x7FEB352D, 0x846CA68B
WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class MaskKey:
    """The two 32-bit words that key a tensor's mask."""

    index: int
    state: int


def mask_key(seed: int, source: str, tensor: str) -> MaskKey:
    """The key of a source's tensor under a recipe's seed."""
    digest = hashlib.sha256(f"{seed}:{source}:{tensor}".encode()).digest()
    return MaskKey(int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))


def threshold(density: float) -> float:
    """What 24-bit draws are compared with: an element is kept where its draw is below."""
    # 24 bits are exact in float32, and so is the threshold: a whole number is below x if it is below ceil(x).
    return float(math.ceil(density * 2**24))


def keep_mask(key: MaskKey, start: int, stop: int, density: float, device: torch.device) -> Tensor:
    """Which elements from `start` to `stop` are kept: float32 ones and zeros, shape (stop - start,).

    The range must not cross a multiple of 2^32.
    """
    return keep(hash24(key, start, stop, device), torch.tensor(threshold(density), device=device))


def hash24(key: MaskKey, start: int, stop: int, device: torch.device) -> Tensor:
    """The draws of every index from `start` to `stop`: int32, shape (stop - start,); the range as in `keep_mask`."""
    high, low = start >> 32, start & WORD
    index = torch.arange(stop - start, dtype=torch.int32, device=device).add_(signed(low))
    words = torch.tensor([signed(key.index ^ mix(high)), signed(key.state)], dtype=torch.int32, device=device)
    return draws(index, words[0], words[1])


def keep(drawn: Tensor, below: Tensor) -> Tensor:
    """Which draws are below a `threshold`: float32 ones and zeros."""
    # The difference is a whole number, and a comparison that gives booleans is several times slower.
    return (below - drawn.to(torch.float32)).clamp_(0.0, 1.0)


def draws(index: Tensor, index_word: Tensor, state_word: Tensor) -> Tensor:
    """The top 24 bits of the keyed hash of every index: int32, shape (n,).

    Args:
        index: (n,) int32, modulo 2^32.
        index_word, state_word: scalar int32, the words of the `MaskKey` (the first mixed with the index's high word).
    """
    state = (index * signed(SPREAD)).bitwise_xor_(index_word)
    state = _fold(state, 16).mul_(FIRST).bitwise_xor_(state_word)
    state = _fold(state, 15).mul_(signed(SECOND))
    return _fold(state, 16).bitwise_right_shift_(8).bitwise_and_(0xFFFFFF)


def mix(word: int) -> int:
    """The unkeyed hash of one 32-bit word, on the host; 0 stays 0."""
    word ^= word >> 16
    word = word * FIRST & WORD
    word ^= word >> 15
    word = word * SECOND & WORD
    return word ^ word >> 16


def signed(word: int) -> int:
    """The int32 with the same bits."""
    return word - (1 << 32) if word >> 31 else word


def _fold(state: Tensor, bits: int) -> Tensor:
    """state ^ (state >> bits) in place, where the shift brings in zeros (int32's own shift brings in the sign)."""
    return state.bitwise_xor_((state >> bits).bitwise_and_((1 << 32 - bits) - 1))
