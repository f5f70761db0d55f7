"""Passthrough: one source, unchanged. The brick of layer layouts (frankenmerges, depth up-scaling).

    out = M

Differs from mergekit: nothing; its `scale` is every method's `scale` here.
"""

from __future__ import annotations

from core.catalog import MethodInfo
from merging.kernels import Combine, Inputs, Method


def kernel(inputs: Inputs) -> Combine:
    """The source itself."""
    return lambda start, stop: inputs.block(0, start, stop)


METHOD = Method(
    info=MethodInfo(name="passthrough", summary="One source, unchanged.", needs_base=False, max_sources=1),
    kernel=kernel,
)
