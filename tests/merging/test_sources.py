from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import (
    CheckpointError,
    MissingCheckpointError,
    NonFiniteCheckpointError,
    PickleCheckpointError,
    TruncatedCheckpointError,
)
from merging.sources import Parents, is_finite, tensor_bytes


def only(family, name="a"):
    model = family.models[name]
    return model.weights_digest, model.header


@pytest.mark.parametrize("options", [{}, {"keep_bytes": 0}], ids=["kept", "not kept"])
def test_every_tensor_comes_as_it_was_saved(family, options):
    digest, header = only(family)
    parents = family.parents(**options)
    for name, tensor in family.tensors("a").items():
        assert torch.equal(parents.tensor(digest, name), tensor)
        assert parents.tensor(digest, name).dtype == tensor.dtype
    assert parents.kept_bytes == (4 * header.parameters if not options else 0)


def test_a_sharded_checkpoint_is_read_through_its_index(family, tmp_path):
    digest, header = only(family)
    folder = tmp_path / "sharded"
    shutil.copytree(family.folder / "a", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, name in enumerate(sorted(tensors)):
        shard = f"part-{number % 3}.safetensors"
        weight_map[name] = shard
    for shard in set(weight_map.values()):
        save_file({n: tensors[n] for n in tensors if weight_map[n] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    parents = Parents({digest: folder}, {digest: header})
    assert all(torch.equal(parents.tensor(digest, name), tensor) for name, tensor in tensors.items())


def test_a_tensor_is_kept_once_and_only_while_there_is_room(family):
    digest, header = only(family)
    small = min(header.tensors, key=lambda t: t.elements)
    large = max(header.tensors, key=lambda t: t.elements)
    parents = family.parents(keep_bytes=4 * small.elements)
    parents.tensor(digest, large.name)
    assert parents.kept_bytes == 0
    assert parents.tensor(digest, small.name, keep=False) is not parents.tensor(digest, small.name)
    assert parents.tensor(digest, small.name) is parents.tensor(digest, small.name, keep=False)
    assert parents.kept_bytes == 4 * small.elements


def test_writing_into_a_mapped_tensor_would_never_reach_the_file(family):
    digest, _ = only(family)
    before = (family.folder / "a/model.safetensors").read_bytes()
    family.parents(keep_bytes=0).tensor(digest, "model.norm.weight").fill_(7)
    assert (family.folder / "a/model.safetensors").read_bytes() == before


def test_a_file_whose_tensors_lie_at_odd_addresses_is_read_rightly(family, tmp_path):
    digest, header = only(family)
    folder = tmp_path / "odd"
    shutil.copytree(family.folder / "a", folder)
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    shifted = (length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :]
    (folder / "model.safetensors").write_bytes(shifted)
    parents = Parents({digest: folder}, {digest: header})
    for name, tensor in family.tensors("a").items():
        assert torch.equal(parents.tensor(digest, name), tensor)


def test_an_infinite_parent_is_refused_by_the_name_of_the_tensor(family, rewrite):
    def spoil(tensors):
        tensors["lm_head.weight"][0, 0] = float("-inf")

    digest, header = only(family)
    folder = rewrite(family.folder / "a", spoil)
    with pytest.raises(NonFiniteCheckpointError) as caught:
        Parents({digest: folder}, {digest: header}).tensor(digest, "lm_head.weight")
    assert caught.value.where == "lm_head.weight"


def test_an_unknown_model_or_tensor_is_a_missing_checkpoint(family):
    digest, _ = only(family)
    with pytest.raises(MissingCheckpointError):
        family.parents().tensor("0" * 64, "lm_head.weight")
    with pytest.raises(MissingCheckpointError) as caught:
        family.parents().tensor(digest, "no.such.tensor")
    assert caught.value.where == "no.such.tensor"


def test_a_folder_without_header_or_with_another_shape_is_refused(family, rewrite):
    digest, header = only(family)
    with pytest.raises(MissingCheckpointError):
        Parents({digest: family.folder / "a"}, {})

    def widen(tensors):
        tensors["model.norm.weight"] = torch.ones(33)

    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        Parents({digest: rewrite(family.folder / "a", widen)}, {digest: header})


def test_truncated_and_pickled_checkpoints_are_never_opened(family, tmp_path, rewrite):
    digest, header = only(family)
    cut = rewrite(family.folder / "a", lambda tensors: None, "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(TruncatedCheckpointError):
        Parents({digest: cut}, {digest: header})
    (cut / "model.safetensors").unlink()
    torch.save({}, cut / "pytorch_model.bin")
    with pytest.raises(PickleCheckpointError):
        Parents({digest: cut}, {digest: header})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_finiteness_is_seen_in_every_dtype(dtype):
    largest = torch.finfo(dtype).max
    assert is_finite(torch.tensor([largest, -largest, 0.0], dtype=dtype))
    assert is_finite(torch.empty(0, dtype=dtype))
    for odd in ("nan", "inf", "-inf"):
        assert not is_finite(torch.tensor([1.0, float(odd), 2.0], dtype=dtype))


def test_bytes_are_row_major_whatever_the_strides():
    tensor = torch.arange(6, dtype=torch.float32).view(2, 3).t()
    assert bytes(tensor_bytes(tensor)) == tensor.contiguous().numpy().tobytes()
    assert bytes(tensor_bytes(torch.tensor([1.0]).bfloat16())) == b"\x80\x3f"
