"""NearSwap: towards another model, but no weight moves further than `t`.

Source: alchemonaut, QuartetAnemoi-70B-t0.0001 (model card), as mergekit has it.

    D   = M - B
    out = min(t / |D|, 1) M + (1 - min(t / |D|, 1)) B = B + clamp(D, -t, t)

Weights that differ by at most `t` are swapped for the other model's, the others take a step of length `t`.

Differs from mergekit: |D| is not raised to 1e-6, so a `t` below that means what it says. `t` has a default.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.catalog import MethodInfo
from core.params import FloatParam
from merging.kernels import Block, Inputs, Method, Step


def kernel(inputs: Inputs) -> Step:
    """The longest step."""
    return Step(moved, (inputs.number("t"),))


def moved(block: Block) -> Tensor:
    """Formula: the number is t."""
    (delta,), (t,) = block.deltas(), block.numbers
    return torch.where(delta.abs() <= t, block.others[0], delta.sign() * t + block.base)


METHOD = Method(
    info=MethodInfo(
        name="nearswap",
        summary="The base moved towards one source, each weight by at most t.",
        needs_base=True,
        max_sources=1,
        idempotent=False,
        smooth=("t",),
        params=(
            FloatParam(
                name="t",
                default=0.001,
                low=0.0,
                search_low=1e-5,
                search_high=0.1,
                log=True,
                about="the furthest that a weight moves",
            ),
        ),
    ),
    kernel=kernel,
)
