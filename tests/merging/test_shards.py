from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors import safe_open

from core.model import TensorInfo
from merging.shards import ShardWriter, cut, index_text, shard_names, tensor_size

TENSORS = [
    TensorInfo(name="b", dtype="F32", shape=(2, 3)),
    TensorInfo(name="a", dtype="BF16", shape=(5,)),
    TensorInfo(name="c", dtype="F32", shape=()),
    TensorInfo(name="empty", dtype="F32", shape=(0, 4)),
]


def test_sizes_count_bytes():
    assert [tensor_size(info) for info in TENSORS] == [24, 10, 4, 0]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (100, [["b", "a", "c", "empty"]]),
        (34, [["b", "a"], ["c", "empty"]]),
        (14, [["b"], ["a", "c", "empty"]]),
        (1, [["b"], ["a"], ["c"], ["empty"]]),
    ],
)
def test_tensors_are_cut_in_order_and_an_oversized_one_stands_alone(limit, expected):
    assert [[info.name for info in shard] for shard in cut(TENSORS, limit)] == expected


def test_names_are_those_transformers_looks_for():
    assert shard_names(1) == ("model.safetensors",)
    assert shard_names(2) == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_a_shard_written_in_pieces_is_a_safetensors_file(tmp_path):
    values = {
        "b": torch.arange(6.0).view(2, 3),
        "a": torch.tensor([1, 2, 3, 4, 5.5]).bfloat16(),
        "c": torch.tensor(-7.0),
    }
    path = tmp_path / "model.safetensors"
    with ShardWriter(path, TENSORS) as writer:
        for info in TENSORS[:3]:
            writer.write(values[info.name].view(-1).view(torch.uint8).numpy().data)
    data = path.read_bytes()
    assert (writer.written.bytes, writer.written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    with safe_open(path, framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        assert set(opened.keys()) == {info.name for info in TENSORS}
        for name, value in values.items():
            assert torch.equal(opened.get_tensor(name), value)
        assert opened.get_tensor("empty").shape == (0, 4)


def test_the_index_names_the_shard_of_every_tensor():
    shards = cut(TENSORS, 34)
    index = json.loads(index_text(shards))
    first, second = shard_names(2)
    assert index["metadata"]["total_size"] == 38
    assert index["weight_map"] == {"b": first, "a": first, "c": second, "empty": second}
