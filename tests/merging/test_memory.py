from __future__ import annotations

import mmap
import sys
from types import SimpleNamespace

import pytest
import torch

from core.errors import OutOfMemoryError
from merging.memory import LARGE_PAGE, fits, free_bytes, in_rows, lacks_memory, natural

CPU = torch.device("cpu")


def test_a_tensor_larger_than_all_memory_is_a_typed_failure():
    with pytest.raises(OutOfMemoryError, match="a giant must fit on cpu"), fits("a giant", CPU):
        torch.empty(2**55, dtype=torch.uint8)


def test_memory_that_only_caches_files_counts_as_free(monkeypatch):
    asked = SimpleNamespace(free=1 << 30, available=7 << 30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: asked)
    assert free_bytes(CPU) == 7 << 30


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_every_kind_of_failed_allocation_is_recognised(error):
    assert lacks_memory(error)


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="shape mismatch"), fits("it", CPU):
        raise RuntimeError("shape mismatch")
    assert not lacks_memory(ValueError("memory"))


def test_tensors_of_one_size_lie_one_after_another_in_order():
    sizes = [((4, 8), torch.float32), ((16,), torch.float32), ((8, 4), torch.float32), ((32,), torch.bfloat16)]
    first, other, second, narrow = in_rows(sizes, torch.device("cpu"))
    assert [tuple(tensor.shape) for tensor in (first, other, second, narrow)] == [shape for shape, _ in sizes]
    assert second.data_ptr() == first.data_ptr() + 128
    assert second.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
    assert len({t.untyped_storage().data_ptr() for t in (first, other, narrow)}) == 3


def test_tensors_that_would_end_between_aligned_addresses_lie_alone():
    first, second = in_rows([((3,), torch.float32)] * 2, torch.device("cpu"))
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def test_names_are_ordered_by_the_numbers_in_them():
    names = ["layers.10.b", "layers.9.b", "layers.9.a", "head", "layers.100.a"]
    assert sorted(names, key=natural) == ["head", "layers.9.a", "layers.9.b", "layers.10.b", "layers.100.a"]


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux only")
def test_large_pages_are_asked_for_within_a_table_and_never_beside_it(monkeypatch):
    asked = []

    class Library:
        def madvise(self, start, length, advice):
            asked.append((start.value, length.value, advice))

    monkeypatch.setattr("merging.memory.ctypes.CDLL", lambda name: Library())
    small, large = ((1024,), torch.float32), ((3 << 20,), torch.float32)
    made = in_rows([small, small, large, large], torch.device("cpu"))
    ((start, length, advice),) = asked
    assert advice == mmap.MADV_HUGEPAGE
    assert start % LARGE_PAGE == length % LARGE_PAGE == 0
    assert made[2].data_ptr() <= start < start + length <= made[3].data_ptr() + made[3].nbytes
    assert length >= 2 * made[2].nbytes - 2 * LARGE_PAGE
