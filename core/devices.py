"""What kinds of device can do, where nothing was measured yet: makers' figures and wide shares of them."""

from __future__ import annotations

from core.noun import Noun

#: Peak dense arithmetic in bfloat16 or float16 (FLOP/s) and memory bandwidth (bytes/s), by a part of the device's name.
#: Makers' data sheets, without sparsity; of several variants the slowest.
_TABLE: tuple[tuple[str, float, float], ...] = (
    ("B200", 2.2e15, 7.7e12),
    ("H200", 9.9e14, 4.8e12),
    ("H100", 7.6e14, 2.0e12),
    ("A100", 3.1e14, 1.5e12),
    ("L40S", 3.6e14, 8.6e11),
    ("L4", 1.2e14, 3.0e11),
    ("A10", 1.2e14, 6.0e11),
    ("4090", 1.6e14, 1.0e12),
    ("3090", 7.1e13, 9.3e11),
    ("V100", 1.1e14, 9.0e11),
    ("T4", 6.5e13, 3.2e11),
)


class Speeds(Noun):
    """What a device is taken to do, as (least, likely, most).

    Attributes:
        name: of the device.
        flops: arithmetic that scoring reaches, FLOP/s.
        bandwidth: bytes per second that building moves.
        overhead: seconds that one item costs beside its arithmetic.
    """

    name: str
    flops: tuple[float, float, float]
    bandwidth: tuple[float, float, float]
    overhead: tuple[float, float, float]


def speeds_of(name: str) -> Speeds:
    """What a device of that name is taken to do; any name of a CPU begins with `cpu`.

    A known GPU is taken at 8 to 55 % of its peak arithmetic (likely 30 %) and at 20 to 80 % of its bandwidth (likely
    50 %); an unknown one may be anything from a T4 to a B200. A CPU may be two old cores or a server.
    """
    if name.startswith("cpu"):
        return Speeds(name=name, flops=(2e10, 1.5e11, 2e12), bandwidth=(1e9, 4e9, 4e10), overhead=(2e-3, 5e-4, 5e-5))
    found = [(flops, bandwidth) for part, flops, bandwidth in _TABLE if part in name]
    slow, fast = (found[0], found[0]) if found else (_TABLE[-1][1:], _TABLE[0][1:])
    middle = (slow[0] * fast[0]) ** 0.5, (slow[1] * fast[1]) ** 0.5
    return Speeds(
        name=name,
        flops=(0.08 * slow[0], 0.3 * middle[0], 0.55 * fast[0]),
        bandwidth=(0.2 * slow[1], 0.5 * middle[1], 0.8 * fast[1]),
        overhead=(1e-3, 2e-4, 2e-5),
    )
