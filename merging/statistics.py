"""What is known of the sources whatever the candidate: norms, inner products, the order of magnitudes. Taken once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

#: Bytes of tensors kept by default.
KEPT_BYTES = 1 << 30
#: Tensors make room once as many others have been asked for as there are, so many times over.
PATIENCE = 16


class Statistics:
    """Values kept by what they are and by the content they were taken of.

    Numbers are kept for ever. Tensors are kept while there is room. One candidate after another asks for all of them
    in turn, so those that are there stay, and make room for others only when nobody has asked for them in a long time.

    Args:
        keep_bytes: how much of tensors may be kept; 0 keeps none.
    """

    def __init__(self, keep_bytes: int = KEPT_BYTES) -> None:
        self._numbers: dict[Hashable, Any] = {}
        self._tensors: OrderedDict[Hashable, tuple[torch.Tensor, ...]] = OrderedDict()
        self._asked: dict[Hashable, int] = {}
        self._clock = 0
        self._room = keep_bytes

    def number(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A number (or a few) under a key, made on first use."""
        if key not in self._numbers:
            self._numbers[key] = make()
        return self._numbers[key]

    def has_room(self, key: Hashable, size: int) -> bool:
        """Whether tensors of so many bytes are kept under the key, or can be."""
        self._clock += 1
        if key in self._tensors:
            return True
        while size > self._room and self._tensors:
            oldest = next(iter(self._tensors))
            if self._clock - self._asked[oldest] <= PATIENCE * len(self._tensors):
                break
            self._room += _bytes(self._tensors.pop(oldest))
            del self._asked[oldest]
        return size <= self._room

    def tensors(self, key: Hashable, make: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        """Tensors under a key, made on first use and whenever there was no room to keep them."""
        found = self.kept(key)
        if found is None:
            found = make()
            size = _bytes(found)
            if not self.has_room(key, size):
                return found
            self._room -= size
            self._tensors[key] = found
            self._asked[key] = self._clock
        return found

    def kept(self, key: Hashable) -> tuple[torch.Tensor, ...] | None:
        """Tensors under a key, if they were kept."""
        self._clock += 1
        found = self._tensors.get(key)
        if found is not None:
            self._tensors.move_to_end(key)
            self._asked[key] = self._clock
        return found


def _bytes(tensors: tuple[torch.Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
