import pytest
import torch

from merging.generation.chunks import Row, count, index, mask, pack, unpack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 5), (4, 8), (2, 3, 5)])
def test_what_is_packed_comes_back_bit_for_bit(dtype, shape):
    draws = torch.Generator().manual_seed(1)
    tensor = torch.empty(shape).normal_(generator=draws).mul_(1e3).to(dtype)
    tensor.view(-1)[0] = -0.0
    chunks = pack(tensor, 8)
    assert chunks.shape == (count(tensor.numel(), 8), 8)
    back = unpack(chunks, tensor.numel()).view(shape)
    assert torch.equal(back.view(torch.uint8), tensor.view(torch.uint8))


def test_chunks_run_along_the_rows_and_the_last_is_padded():
    chunks = pack(torch.arange(10.0).view(2, 5), 4)
    assert chunks.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]
    assert mask(10, 4).tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]


def test_no_chunk_crosses_from_one_tensor_to_the_next():
    assert list(index([5, 4], 4)) == [Row(0, 0, 0, 4), Row(0, 1, 4, 1), Row(1, 0, 0, 4)]
