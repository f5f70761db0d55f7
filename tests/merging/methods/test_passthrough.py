from __future__ import annotations

import numpy as np
import torch


def test_the_source_comes_through_byte_for_byte(merge, arrays):
    negative_zero = np.float32([-0.0, 0.0, 1.5])
    assert merge("passthrough", [negative_zero]).numpy().tobytes() == negative_zero.tobytes()
    assert np.array_equal(merge("passthrough", arrays[:1]).numpy(), arrays[0])


def test_another_dtype_is_one_rounding(merge, arrays):
    assert torch.equal(merge("passthrough", arrays[:1], dtype=torch.bfloat16), torch.tensor(arrays[0]).bfloat16())


def test_a_scale_multiplies_before_the_rounding(merge, arrays):
    half = torch.tensor(arrays[0]).bfloat16()
    out = merge("passthrough", [half], scale=0.3, dtype=torch.bfloat16)
    assert torch.equal(out, torch.tensor(half.float().numpy() * np.float32(0.3)).bfloat16())
