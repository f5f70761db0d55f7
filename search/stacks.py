"""Known good starts among layouts: depth up-scaling and its interlocked form, at their papers' share of the stack."""

from __future__ import annotations

from core.params import IntParam, Scalar
from core.space import SearchSpace

#: Depth up-scaling (SOLAR 10.7B, arXiv 2312.15166) and interlocked depth up-scaling.
PRESETS = ("dus", "idus")
#: Of 32 layers SOLAR takes 8 off each copy.
SHARE = 4


def stacks(space: SearchSpace) -> list[dict[str, Scalar]]:
    """Values to enqueue: each of the two that the space has, of the first source, the rest at its default.

    Args:
        space: the compiled search space.
    """
    names = {hole.name for hole in space.holes}
    return [_stack(space, preset) for preset in PRESETS if f"layout.{preset}.m" in names]


def _stack(space: SearchSpace, preset: str) -> dict[str, Scalar]:
    removed = max(1, space.depth // SHARE)
    wanted: dict[str, Scalar] = {"family": "layout", "layout.preset": preset, f"layout.{preset}.m": removed}
    values: dict[str, Scalar] = {}
    for hole in space.holes:
        if all(values.get(name) == value for name, value in hole.when):
            value = wanted.get(hole.name, hole.spec.default)
            if isinstance(hole.spec, IntParam):
                value = int(min(max(int(value), hole.spec.search_low), hole.spec.search_high))
            values[hole.name] = value
    space.check(values)
    return values
