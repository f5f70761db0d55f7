from __future__ import annotations

import pytest
import torch

from core.errors import OutOfMemoryError
from merging.memory import fits, lacks_memory

CPU = torch.device("cpu")


def test_a_tensor_larger_than_all_memory_is_a_typed_failure():
    with pytest.raises(OutOfMemoryError, match="a giant must fit on cpu"), fits("a giant", CPU):
        torch.empty(2**55, dtype=torch.uint8)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_every_kind_of_failed_allocation_is_recognised(error):
    assert lacks_memory(error)


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="shape mismatch"), fits("it", CPU):
        raise RuntimeError("shape mismatch")
    assert not lacks_memory(ValueError("memory"))
