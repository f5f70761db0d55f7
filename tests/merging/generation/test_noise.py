import hashlib
import math

import pytest
import torch

from merging.generation.noise import normals

WORD = 0xFFFFFFFF


def draw(purpose: str, index: int, seed: int = 9, tensor: str = "model.norm.weight") -> int:
    """The 24-bit draw of law 2's hash, in Python's integers."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{tensor}".encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 4], "little") for at in (0, 4))
    state = index * 0x9E3779B9 & WORD ^ first
    state = (state ^ state >> 16) * 0x7FEB352D & WORD ^ second
    state = (state ^ state >> 15) * 0x846CA68B & WORD
    return (state ^ state >> 16) >> 8


@pytest.mark.parametrize("index", [0, 1, 1023, 1024, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_draw_is_box_and_mullers_of_two_hashes(index):
    radius = math.sqrt(-2.0 * math.log((draw("step 5 0:radius", index) + 0.5) / 2**24))
    angle = 2.0 * math.pi * draw("step 5 0:angle", index) / 2**24
    found = normals(9, "step 5 0", "model.norm.weight", index, index + 1, torch.device("cpu"))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(radius * math.cos(angle), rel=1e-6, abs=1e-9)


def test_draws_are_normal():
    found = normals(3, "noise", "w", 0, 200_000, torch.device("cpu")).double()
    assert float(found.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(found.std()) == pytest.approx(1.0, abs=0.01)
    assert float((found**4).mean()) == pytest.approx(3.0, abs=0.1)
    for bound, share in ((1.0, 0.3173), (1.96, 0.05), (3.0, 0.0027)):
        assert float((found.abs() > bound).double().mean()) == pytest.approx(share, rel=0.1)


def test_neighbours_and_other_purposes_are_not_correlated():
    one = normals(3, "noise", "w", 0, 100_000, torch.device("cpu"))
    for lag in (1, 2, 1024):
        assert abs(float(torch.corrcoef(torch.stack([one[:-lag], one[lag:]]))[0, 1])) < 0.015
    others = [normals(4, "noise", "w", 0, 100_000, torch.device("cpu"))]
    others += [
        normals(3, purpose, name, 0, 100_000, torch.device("cpu"))
        for purpose, name in (("start 0", "w"), ("noise", "v"))
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.015
