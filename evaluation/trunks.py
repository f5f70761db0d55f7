"""Beginnings that were read, with the keys and values they left for what is to stand on them."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import DynamicCache

from evaluation.packing import SHARED_TOKENS, Stem
from evaluation.trees import Tokens, shared_length


@dataclass
class Trunk:
    """A beginning that was read, for what is to stand on it.

    Attributes:
        tokens: of the text.
        cache: their keys and values.
        begun: the layer at which reading began; those below it have nothing in the cache.
    """

    tokens: Tokens
    cache: DynamicCache
    begun: int


class Trunks:
    """The beginning that many documents of one task share, kept from block to block of one candidate.

    It knows nothing of the weights: the next candidate, or the same memory under other weights, needs a new one.
    """

    def __init__(self) -> None:
        self._kept: Trunk | None = None

    def fitted(self, stem: Stem) -> tuple[Stem, Trunk | None]:
        """The stem, cut to the kept beginning if that will do for it, and what was kept, cut to the stem."""
        kept = self._kept
        if kept is None:
            return stem, None
        length = shared_length(kept.tokens, stem.tokens)
        # Blocks differ in the last tokens that their documents happen to share: the fewest serve all of them.
        if length < SHARED_TOKENS or 2 * length < max(len(kept.tokens), len(stem.tokens)):
            return stem, None
        kept.tokens = kept.tokens[:length]
        cut(kept.cache, length)
        return stem.cut(length), kept

    def keep(self, stem: Stem, trunk: Trunk) -> None:
        """Keep the beginning of several documents in the place of the last one."""
        if len(stem.items) > 1:
            self._kept = trunk


def cut(cache: DynamicCache, length: int) -> None:
    """Leave the first `length` tokens in every layer, also where a pass broke off among the layers."""
    for layer in cache.layers:
        # A layer that is not read holds nothing.
        layer.crop(min(0, length - layer.get_seq_length()))
