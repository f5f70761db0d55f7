"""The resident memory: one slot per content, written anew only where the content changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from merging.batches import Layouts
from merging.memory import in_rows, lacks_memory, natural
from merging.seats import Seat


class Wanted(Protocol):
    """What memory is asked for; a plan is one."""

    @property
    def name(self) -> str:
        """Of the tensor in the candidate."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor."""


class Kind(NamedTuple):
    """A name, a shape and a dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Memory for one tensor, and the name it was last written under.

    Attributes:
        memory: the parameter's tensor.
        seats: tasks that are done again and again and end up here, by the site of their plan.
    """

    parameter: torch.nn.Parameter
    name: str
    memory: torch.Tensor
    seats: dict[bytes, Seat] = field(default_factory=dict)


class Slots:
    """Slots outlive their candidate: what the next one does not need may be overwritten by it.

    Args:
        device: where they lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        #: What holds which content.
        self.held: dict[Hashable, Slot] = {}
        #: How tasks that end up here are laid out.
        self.layouts = Layouts()

    def claim(self, wanted: Mapping[Hashable, Wanted]) -> dict[Hashable, Slot]:
        """A slot for every content that is not held yet; `settle` them once they are written.

        Until then they hold nothing, so that a failed build leaves no slot under a wrong content.
        """
        missing = {content: planned for content, planned in wanted.items() if content not in self.held}
        claimed = self._reuse(missing, [content for content in self.held if content not in wanted])
        rest = {content: planned for content, planned in missing.items() if content not in claimed}
        try:
            return {**claimed, **self._allocate(rest)}
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            self.layouts.clear()
            for content in [content for content in self.held if content not in wanted]:
                del self.held[content]
            return {**claimed, **self._allocate(rest)}

    def settle(self, written: Mapping[Hashable, Slot]) -> None:
        """Claimed slots hold their contents now."""
        self.held.update(written)

    def give_back(self, claimed: Iterable[Slot]) -> None:
        """Claimed slots hold nothing that anybody asks for: they are free, and stay where they are."""
        self.held.update((object(), slot) for slot in claimed)

    def _reuse(self, missing: Mapping[Hashable, Wanted], free: list[Hashable]) -> dict[Hashable, Slot]:
        """Free slots of the right shape and dtype; first those that had the same name, for they lie in order."""
        named = {self.held[content].name: content for content in free}
        claimed, others = {}, []
        for content, planned in missing.items():
            same = named.get(planned.name)
            memory = None if same is None else self.held[same].memory
            if memory is not None and memory.shape == planned.shape and memory.dtype == planned.dtype:
                claimed[content] = self.held.pop(named.pop(planned.name))
            else:
                others.append((content, planned))
        if others:
            claimed |= self._reuse_any(others, [content for content in free if content in self.held])
        return claimed

    def _reuse_any(self, missing: Sequence[tuple[Hashable, Wanted]], free: Sequence[Hashable]) -> dict[Hashable, Slot]:
        """The same whatever the slots were called."""
        kinds: dict[tuple[torch.Size, torch.dtype], list[Hashable]] = defaultdict(list)
        for content in reversed(free):
            memory = self.held[content].memory
            kinds[memory.shape, memory.dtype].append(content)
        claimed = {}
        for content, planned in missing:
            found = kinds[torch.Size(planned.shape), planned.dtype]
            if found:
                slot = self.held.pop(found.pop())
                claimed[content] = Slot(slot.parameter, planned.name, slot.memory)
        return claimed

    def _allocate(self, plans: Mapping[Hashable, Wanted]) -> dict[Hashable, Slot]:
        """New slots; those of one size lie one after another in the order of their names."""
        ordered = sorted(plans.items(), key=lambda item: natural(item[1].name))
        made = in_rows([(planned.shape, planned.dtype) for _, planned in ordered], self._device)
        return {
            content: Slot(torch.nn.Parameter(tensor, requires_grad=False), planned.name, tensor)
            for (content, planned), tensor in zip(ordered, made, strict=True)
        }
