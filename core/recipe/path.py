"""A path of the residual stream through the layers of several models (data-flow space).

    {"sources": ["a", "b"], "repeats": 2, "include": [true, false, ...], "scales": [null, null, 0.9, ...]}

The slots are all layers of the first source, then all of the next, and so on, the whole of it `repeats` times: with n
layers in total there are T = n * repeats slots. The stream visits the included slots in order, and is multiplied by
a slot's scale as it enters. Sakana's data-flow space (arXiv 2403.13187, section 3.2).

Differs from the paper: a scale belongs to a slot, not to a pair of neighbours on the path; it exists only where its
slot is included (as arXiv 2605.12326 advises); and it is folded into ordinary weights, so that the result is a
checkpoint like any other (see `core.recipe.factors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from core.errors import LayoutError
from core.noun import Noun
from core.recipe.limits import MAX_FACTOR, MAX_LAYERS, MAX_SOURCES, MIN_FACTOR

#: How often the sequence of all layers may be offered.
MAX_REPEATS = 64

#: What a layer's logits, its output, or the stream on its way can be multiplied by.
Factor = Annotated[float, Field(ge=MIN_FACTOR, le=MAX_FACTOR)]


class Path(Noun):
    """Which layers of which sources the stream passes, and how it is scaled on its way.

    Attributes:
        sources: sources of one width, in the order of the slots.
        repeats: how often the sequence of all their layers is offered.
        include: for every slot, whether the stream passes it.
        scales: for every slot, the factor on the stream as it enters (null is 1); none at all for no factors.
        embed: the source of the embedding; the first source by default.
        head: the source of the final norm and the head; that of the last included slot by default.
    """

    sources: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_SOURCES)]
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = 1
    include: Annotated[tuple[bool, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    scales: Annotated[tuple[Factor | None, ...], Field(max_length=MAX_LAYERS)] = ()
    embed: str | None = None
    head: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> Path:
        if len(set(self.sources)) != len(self.sources):
            raise ValueError(f"a path names each source once, but got {list(self.sources)!r}: raise `repeats` instead")
        if not any(self.include):
            raise ValueError("a path must include a slot, but leaves out all: include one")
        if self.scales and len(self.scales) != len(self.include):
            raise ValueError(
                f"a path has one scale per slot, but got {len(self.scales)} for {len(self.include)}: "
                "use null where the stream keeps its size"
            )
        odd = [slot for slot, scale in enumerate(self.scales) if scale is not None and not self.include[slot]]
        if odd:
            raise ValueError(f"slot {odd[0]} is not included, but has a scale: use null, or include the slot")
        return self

    def slots(self, depths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """(source, layer) of every slot.

        Args:
            depths: layers of each source.

        Raises:
            LayoutError: `include` has not one entry per slot.
        """
        once = [(name, layer) for name in self.sources for layer in range(depths[name])]
        count = len(once) * self.repeats
        if count != len(self.include):
            raise LayoutError(
                f"a path over {len(once)} layers, {self.repeats} times, has {count} slots, but `include` has "
                f"{len(self.include)}: give one entry per slot",
                where="include",
            )
        return tuple(once * self.repeats)

    def steps(self, depths: Mapping[str, int]) -> tuple[tuple[str, int, float], ...]:
        """(source, layer, factor on the stream as it enters) of every included slot; errors as in `slots`."""
        scales = self.scales or (None,) * len(self.include)
        return tuple(
            (name, layer, 1.0 if scale is None else scale)
            for (name, layer), taken, scale in zip(self.slots(depths), self.include, scales, strict=True)
            if taken
        )
