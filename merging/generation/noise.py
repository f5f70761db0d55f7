"""Normal draws that any worker repeats: law 2's counter hash, turned by Box and Muller's transform.

The draw of an element depends on the seed, the tensor's name, what the noise is for and the element's index, and on
nothing that is drawn beside it. Logarithm and cosine make it equal within one numerics class (law 3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from merging.randomness import hash24, mask_key


def normals(seed: int, purpose: str, tensor: str, start: int, stop: int, device: torch.device) -> Tensor:
    """N(0, 1) draws number `start` to `stop`: float32, (stop - start,). The range must not cross a multiple of 2^32.

    Args:
        seed: of the draw.
        purpose: tells noises of one tensor apart.
        tensor: the name of the tensor they belong to.
        start, stop: indices, counted through the tensor.
        device: where they are made.
    """
    first = hash24(mask_key(seed, f"{purpose}:radius", tensor), start, stop, device)
    second = hash24(mask_key(seed, f"{purpose}:angle", tensor), start, stop, device)
    # Half a step above 0, so that the logarithm is finite; both are exact in float64.
    radius = first.double().add_(0.5).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = second.double().mul_(2.0 * math.pi * 2.0**-24).cos_()
    return radius.mul_(angle).float()
