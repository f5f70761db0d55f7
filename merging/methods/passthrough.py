"""Passthrough: one source, unchanged. The brick of layer layouts (frankenmerges, depth up-scaling).

    out = M

Differs from mergekit: nothing; its `scale` is every method's `scale` here.
"""

from __future__ import annotations

from torch import Tensor

from core.catalog import MethodInfo
from merging.kernels import Block, Inputs, Method, Step


def kernel(inputs: Inputs) -> Step:
    """The source itself."""
    return Step(itself)


def itself(block: Block) -> Tensor:
    """Formula: M."""
    return block.others[0]


METHOD = Method(
    info=MethodInfo(name="passthrough", summary="One source, unchanged.", needs_base=False, max_sources=1),
    kernel=kernel,
)
