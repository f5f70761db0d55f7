"""The record of a sample: all that reproduces it from its generator and its base, in about 120 bytes.

    byte 0       version            byte 1       arm, and mode in the top bit
    2..33        generator          34..65       base: the digest of what is sampled around
    66..73       seed               then         a bit per number that is not its default, those numbers,
                                                 the selectors, the amounts and the coefficients

Numbers are float64 (steps: 16 bits), little-endian, so that nothing is rounded on the way.
"""

from __future__ import annotations

import struct
from typing import Any, get_args

from core.draws import Arm, Draw, Mode
from core.errors import InvalidInputError

VERSION = 1
_ARMS, _MODES = get_args(Arm), get_args(Mode)
#: In the order of their bits.
_NUMBERS = ("strength", "tau", "eta", "guidance", "blend", "rho")
_STEPS, _AMOUNTS, _COEFFICIENTS = 1 << 6, 1 << 7, 1 << 8
_HEAD = struct.Struct("<BB32s32sQH")


def pack(draw: Draw, base: str) -> bytes:
    """The record of a draw around a base.

    Args:
        draw: the sample; values without effect are left out.
        base: weights digest of a model, or recipe digest of a candidate without the draw.
    """
    plain, draw = Draw(generator=draw.generator, selectors=draw.selectors), draw.canonical
    bits, numbers = 0, b""
    for place, name in enumerate(_NUMBERS):
        value = getattr(draw, name)
        if value is not None and value != getattr(plain, name):
            bits |= 1 << place
            numbers += struct.pack("<d", value)
    if draw.steps != plain.steps:
        bits |= _STEPS
        numbers += struct.pack("<H", draw.steps)
    lists = b""
    for bit, values in ((_AMOUNTS, draw.amounts), (_COEFFICIENTS, draw.coefficients)):
        if values:
            bits |= bit
            lists += struct.pack(f"<H{len(values)}d", len(values), *values)
    kind = _ARMS.index(draw.arm) | _MODES.index(draw.mode) << 7
    head = _HEAD.pack(VERSION, kind, bytes.fromhex(draw.generator), bytes.fromhex(base), draw.seed, bits)
    return head + numbers + lists + ",".join(draw.selectors).encode("ascii")


def unpack(record: bytes) -> tuple[Draw, str]:
    """The draw and the base of a record.

    Raises:
        InvalidInputError: no record.
    """
    try:
        version, kind, generator, base, seed, bits = _HEAD.unpack_from(record)
        if version != VERSION:
            raise ValueError(f"version {version!r}")
        values, place = _values(record, bits)
        selectors = tuple(record[place:].decode("ascii").split(","))
        arm, mode = _ARMS[kind & 0x7F], _MODES[kind >> 7]
        draw = Draw(generator=generator.hex(), selectors=selectors, arm=arm, mode=mode, seed=seed, **values)
    except (struct.error, ValueError, IndexError) as error:
        raise InvalidInputError(f"a record of a sample must be one of version {VERSION}, but {error}") from error
    return draw, base.hex()


def _values(record: bytes, bits: int) -> tuple[dict[str, Any], int]:
    """The numbers and lists behind the head, and where the selectors begin."""
    found: dict[str, Any] = {}
    place = _HEAD.size
    for bit, name in enumerate(_NUMBERS):
        if bits >> bit & 1:
            (found[name],) = struct.unpack_from("<d", record, place)
            place += 8
    if bits & _STEPS:
        (found["steps"],) = struct.unpack_from("<H", record, place)
        place += 2
    for bit, name in ((_AMOUNTS, "amounts"), (_COEFFICIENTS, "coefficients")):
        if bits & bit:
            (count,) = struct.unpack_from("<H", record, place)
            found[name] = struct.unpack_from(f"<{count}d", record, place + 2)
            place += 2 + 8 * count
    return found, place
