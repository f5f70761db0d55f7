"""What is known of the sources whatever the candidate: norms, inner products, the order of magnitudes. Taken once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

#: Bytes of tensors kept by default.
KEPT_BYTES = 1 << 30


class Statistics:
    """Values kept by what they are and by the content they were taken of.

    Numbers are kept for ever; tensors make room for newer ones beyond `keep_bytes`.

    Args:
        keep_bytes: how much of tensors may be kept; 0 keeps none.
    """

    def __init__(self, keep_bytes: int = KEPT_BYTES) -> None:
        self._numbers: dict[Hashable, Any] = {}
        self._tensors: OrderedDict[Hashable, tuple[torch.Tensor, ...]] = OrderedDict()
        self._room = keep_bytes

    def number(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A number (or a few) under a key, made on first use."""
        if key not in self._numbers:
            self._numbers[key] = make()
        return self._numbers[key]

    def has_room(self, key: Hashable, size: int) -> bool:
        """Whether tensors of so many bytes are kept under the key, or can be without dropping others."""
        return key in self._tensors or size <= self._room

    def tensors(self, key: Hashable, make: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        """Tensors under a key, made on first use and whenever there was no room to keep them."""
        found = self._tensors.get(key)
        if found is not None:
            self._tensors.move_to_end(key)
            return found
        found = make()
        size = _bytes(found)
        while self._tensors and size > self._room:
            self._room += _bytes(self._tensors.popitem(last=False)[1])
        if size <= self._room:
            self._room -= size
            self._tensors[key] = found
        return found


def _bytes(tensors: tuple[torch.Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
