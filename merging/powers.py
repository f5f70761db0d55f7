"""Powers and exponentials per element with equal bytes everywhere: additions, multiplications and integers alone.

The functions of mathematical libraries differ in their last bits between devices, and between a formula as it stands
and compiled. These do not. Where derivatives are wanted, or float64, torch's own are taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The mantissa's bits, and the bits of 1 and of sqrt(1/2), in float32.
MANTISSA, ONE, HALF_ROOT = 23, 0x3F800000, 0x3F3504F3
#: 2 / ln 2 / k for odd k: log2(m) = sum_k c_k s^k with s = (m - 1) / (m + 1).
LOG2 = (2.8853900817779268, 0.9617966939259756, 0.5770780163555854, 0.4121985831111324, 0.32059889797532520)
#: (ln 2)^k / k!: 2^f = sum_k c_k f^k.
EXP2 = (
    1.0,
    0.6931471805599453,
    0.2402265069591007,
    0.05550410866482158,
    0.009618129107628477,
    0.0013333558146428443,
    0.0001540353039338161,
    0.000015252733804059841,
)
#: 1 / ln 2.
PER_E = 1.4426950408889634
#: The least exponent of a normal float32.
LEAST = -126.0


def power(base: Tensor, exponent: Tensor) -> Tensor:
    """base ** exponent, with 0 ** 0 = 1; within 1e-5 of the true value where that is above 1e-30.

    Args:
        base: (n,) in [0, 1].
        exponent: a scalar, 0 or more.
    """
    if _wants_torch(base, exponent):
        return base**exponent
    found = _exp2(_log2(base) * exponent)
    return found * torch.maximum(torch.ne(base, 0.0).to(base.dtype), torch.eq(exponent, 0.0).to(base.dtype))


def exponential(x: Tensor) -> Tensor:
    """e ** x for x of 0 or less, of any shape; what is below 1e-38 is about that."""
    return torch.exp(x) if _wants_torch(x) else _exp2(x * PER_E)


def _wants_torch(*tensors: Tensor) -> bool:
    return any(tensor.dtype != torch.float32 or tensor.requires_grad for tensor in tensors)


def _log2(x: Tensor) -> Tensor:
    """The binary logarithm of normal numbers; about -127 for smaller ones."""
    bits = x.view(torch.int32) + (ONE - HALF_ROOT)
    # x = m * 2^e with m in [sqrt(1/2), sqrt(2)), where s is smallest.
    whole = ((bits >> MANTISSA) - 127).to(torch.float32)
    mantissa = ((bits & ((1 << MANTISSA) - 1)) + HALF_ROOT).view(torch.float32)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return _polynomial(LOG2, s * s) * s + whole


def _exp2(x: Tensor) -> Tensor:
    """2 ** x for x of 0 or less."""
    x = torch.clamp(x, min=LEAST)
    whole = torch.floor(x + 0.5)
    scale = ((whole.to(torch.int32) + 127) << MANTISSA).view(torch.float32)
    return _polynomial(EXP2, x - whole) * scale


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """sum_k c_k x^k, each product rounded before it is added."""
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total = (total + coefficient) * x
    return total + coefficients[0]
