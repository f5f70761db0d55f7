from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import namedtuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.checkpoint import read_header
from core.checkpoint import weights_digest as folder_digest
from core.errors import (
    CancelledError,
    CheckpointError,
    ConflictError,
    DiskFullError,
    InvalidInputError,
    NonFiniteWeightsError,
    OutOfMemoryError,
    PathNotAllowedError,
)
from core.recipe import Recipe, Source
from core.recipe.output import output_tensors
from merging.export import export
from merging.resident import Resident, weights_digest
from merging.shards import ShardWriter, tensor_size

usage = namedtuple("usage", "total used free")


@pytest.fixture
def send(family, tmp_path):
    """Export a recipe of the float32 family into `out`."""

    def run(recipe, **options):
        options = {"tokenizer_folder": family.folder / "base", **options}
        return export(recipe, family.parents(), tmp_path / "out", **options)

    return run


def recipes(family):
    return {
        "passthrough": family.stack("a", (0, 1, 2, 3)),
        "restacked": family.stack("a", (0, 1, 2, 1, 2, 3), "bfloat16"),
        "linear": family.merge("linear", weight={"a": [0.1, 0.9], "b": 0.4, "c": {"groups": [0.0, 1.0]}}),
        "slerp": family.recipe(
            merge={"method": "slerp", "sources": ["a", "b"], "params": {"t": [0.2, 0.8]}}, save_dtype="float16"
        ),
        "task_arithmetic": family.merge("task_arithmetic", save_dtype="bfloat16", weight=0.4),
        "ties": family.merge("ties", density=0.4, scale=1.1),
        "dare_ties": family.merge("dare_ties", save_dtype="bfloat16", density=0.4, seed=3),
    }


@pytest.mark.parametrize(
    "name", ["passthrough", "restacked", "linear", "slerp", "task_arithmetic", "ties", "dare_ties"]
)
def test_the_exported_checkpoint_is_the_scored_model(family, send, tmp_path, tokens, name):
    recipe = recipes(family)[name]
    built = Resident(family.parents()).build(recipe)
    info = send(recipe)
    assert info.weights_digest == weights_digest(built) == folder_digest(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert loaded.dtype == built.model.dtype
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, built.model(tokens).logits)


def test_a_tied_checkpoint_stays_tied_and_holds_no_head(half_family, tmp_path, tokens):
    recipe = half_family.merge("ties", save_dtype="bfloat16", density=0.5)
    out = tmp_path / "out"
    info = export(recipe, half_family.parents(), out, tokenizer_folder=half_family.folder / "a")
    assert "lm_head.weight" not in {t.name for t in read_header(out).tensors}
    built = Resident(half_family.parents()).build(recipe)
    assert info.weights_digest == weights_digest(built)
    loaded = AutoModelForCausalLM.from_pretrained(out).eval()
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, built.model(tokens).logits)


@pytest.mark.parametrize("size", [1, 20_000, 10**9])
def test_the_weights_digest_does_not_depend_on_how_the_weights_are_sharded(family, send, tmp_path, tokens, size):
    recipe = recipes(family)["linear"]
    info = send(recipe, max_shard_bytes=size)
    out = tmp_path / "out"
    shards = sorted(out.glob("*.safetensors"))
    assert (
        len(shards) == {1: len(output_tensors(recipe, family.parents().headers)), 20_000: len(shards), 10**9: 1}[size]
    )
    assert (out / "model.safetensors.index.json").is_file() == (size < 10**9)
    assert info.weights_digest == folder_digest(out) == weights_digest(Resident(family.parents()).build(recipe))
    assert AutoModelForCausalLM.from_pretrained(out)(tokens).logits.shape == (2, 6, 64)
    for shard in shards:
        assert int.from_bytes(shard.read_bytes()[:8], "little") % 8 == 0


def test_every_file_is_listed_with_its_size_and_hash(family, send, tmp_path):
    info = send(recipes(family)["ties"], max_shard_bytes=30_000)
    on_disk = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert [f.name for f in info.files] == sorted(on_disk)
    for file in info.files:
        assert (file.bytes, file.sha256) == (len(on_disk[file.name]), hashlib.sha256(on_disk[file.name]).hexdigest())
    assert info.parameters == read_header(tmp_path / "out").parameters


def test_a_second_export_of_a_recipe_is_the_same_in_every_file(family, tmp_path):
    recipe = recipes(family)["dare_ties"]
    first, second = (
        export(recipe, family.parents(), tmp_path / name, tokenizer_folder=family.folder / "base") for name in "12"
    )
    assert first == second


def test_a_shared_layer_is_written_under_each_of_its_indices(family, send, tmp_path):
    send(family.stack("b", (2, 2, 0)))
    header = read_header(tmp_path / "out")
    assert header.layers == 3
    assert header.config_dict["num_hidden_layers"] == 3
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    theirs = family.tensors("b")
    for place, layer in enumerate((2, 2, 0)):
        mine = model.model.layers[place].mlp.down_proj.weight
        assert torch.equal(mine, theirs[f"model.layers.{layer}.mlp.down_proj.weight"])


def test_a_nested_recipe_is_the_same_as_exporting_its_ingredient_first(family, tmp_path):
    inner = Recipe(
        sources=tuple(Source(name=n, model=n) for n in ("base", "a", "b")),
        merge={"method": "ties", "base": "base", "params": {"density": 0.5}},
        save_dtype="bfloat16",
    )
    nested = family.recipe(
        sources=(Source(name="inner", recipe=inner), "c"),
        merge={"method": "linear", "params": {"weight": {"inner": 0.3, "c": 0.8}}},
        save_dtype="float32",
    )
    first = tmp_path / "inner"
    export(
        family.recipe(sources=("base", "a", "b"), merge=inner.merge, save_dtype="bfloat16"),
        family.parents(),
        first,
        tokenizer_folder=family.folder / "base",
    )
    (tmp_path / "c").symlink_to(family.folder / "c")
    staged = type(family)(tmp_path, ("inner", "c"))
    second = staged.recipe(
        merge={"method": "linear", "params": {"weight": {"inner": 0.3, "c": 0.8}}}, save_dtype="float32"
    )
    expected = weights_digest(Resident(staged.parents()).build(second))
    assert weights_digest(Resident(family.parents()).build(nested)) == expected
    assert export(nested, family.parents(), tmp_path / "n", tokenizer_folder=first).weights_digest == expected


def test_passing_a_nested_parent_through_costs_no_copy(family):
    inner = Recipe(
        sources=(Source(name="a", model="a"),),
        layout={"preset": "dus", "source": "a", "params": {"m": 1}},
        save_dtype="float32",
    )
    nested = family.recipe(
        sources=(Source(name="deep", recipe=inner),),
        layout={"preset": "dus", "source": "deep", "params": {"m": 2}},
        save_dtype="float32",
    )
    parents = family.parents()
    built = Resident(parents).build(nested)
    digest = family.models["a"].weights_digest
    assert len(built.layer_keys) == 8
    theirs = {parents.tensor(digest, t.name).data_ptr() for t in family.models["a"].header.tensors}
    assert {p.data_ptr() for p in built.model.parameters()} == theirs


def test_the_tokenizer_and_its_special_tokens_come_along(family, send, tmp_path):
    send(recipes(family)["linear"])
    ours, theirs = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / "out", family.folder / "base"))
    text = "w5 w9 w3 unknown"
    assert ours(text).input_ids == theirs(text).input_ids
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert (
        json.loads((tmp_path / "out/tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    )
    assert read_header(tmp_path / "out").tokenizer_digest == family.models["base"].header.tokenizer_digest


def test_the_generation_config_is_the_donors_or_made_of_the_token_ids(family, send, tmp_path, rewrite):
    send(recipes(family)["linear"])
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    theirs = json.loads((family.folder / "base/generation_config.json").read_text())
    assert written == {k: v for k, v in theirs.items() if k != "transformers_version"}
    bare = rewrite(family.folder / "base", lambda tensors: None)
    (bare / "generation_config.json").unlink()
    export(recipes(family)["linear"], family.parents(), tmp_path / "bare", tokenizer_folder=bare)
    made = json.loads((tmp_path / "bare/generation_config.json").read_text())
    assert made == {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2}


def test_an_existing_folder_is_left_alone(family, send, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConflictError):
        send(recipes(family)["linear"])
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["out.partial", ".out.partial-0123456789abcdef"])
def test_a_folder_of_somebody_else_is_left_alone_whatever_its_name(family, send, tmp_path, name):
    foreign = tmp_path / name
    foreign.mkdir()
    (foreign / "thesis.txt").write_bytes(b"mine")
    send(recipes(family)["linear"])
    assert (foreign / "thesis.txt").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out"])


def test_of_two_exports_into_one_folder_the_later_is_refused_and_the_first_is_whole(family, send, tmp_path):
    first = []

    def meanwhile(done, _of):
        if done == 3:
            first.append(send(recipes(family)["slerp"]))

    with pytest.raises(ConflictError, match="out"):
        send(recipes(family)["linear"], progress=meanwhile)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert folder_digest(tmp_path / "out") == first[0].weights_digest
    assert [file.name for file in first[0].files] == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_a_link_to_nowhere_is_not_replaced(family, send, tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError):
        send(recipes(family)["linear"])
    assert (tmp_path / "out").is_symlink()


def test_an_exported_folder_may_be_entered_by_whom_others_may(family, send, tmp_path):
    (tmp_path / "plain").mkdir()
    send(recipes(family)["linear"])
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_added_last_appears_with_the_folder_or_neither_does(family, send, tmp_path):
    def finish(folder, info):
        assert not (tmp_path / "out").exists()
        assert [file.name for file in info.files] == sorted(path.name for path in folder.iterdir())
        (folder / "manifest").write_text(info.weights_digest)

    info = send(recipes(family)["linear"], finish=finish)
    assert (tmp_path / "out" / "manifest").read_text() == info.weights_digest
    shutil.rmtree(tmp_path / "out")

    def full(folder, _info):
        (folder / "manifest").write_text("half")
        raise OSError(errno.ENOSPC, "the disk")

    with pytest.raises(DiskFullError):
        send(recipes(family)["linear"], finish=full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["file/out", "file/deeper/out", "x" * 300])
def test_a_target_that_cannot_be_made_is_refused_before_the_first_weight(family, tmp_path, below):
    (tmp_path / "file").touch()
    seen = []
    with pytest.raises(InvalidInputError, match=r"cannot be made .*choose another place"):
        export(
            recipes(family)["linear"],
            family.parents(),
            tmp_path / below,
            tokenizer_folder=family.folder / "base",
            progress=lambda *done: seen.append(done),
        )
    assert not seen and [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EACCES, InvalidInputError),
        (errno.EROFS, InvalidInputError),
        (errno.ENOENT, InvalidInputError),
        (errno.ENOSPC, DiskFullError),
        (errno.EIO, OSError),
    ],
)
def test_what_the_system_answers_to_a_new_folder_is_told_in_our_words(family, send, monkeypatch, number, error):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(error):
        send(recipes(family)["linear"])


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", [b"{", b"[1]", b"null", b"\xff\xfe"])
def test_a_donor_whose_config_is_no_object_is_refused_before_the_first_weight(family, send, tmp_path, name, text):
    donor = tmp_path / "donor"
    shutil.copytree(family.folder / "base", donor)
    (donor / name).write_bytes(text)
    seen = []
    with pytest.raises(CheckpointError, match=f"{name} of 'donor' must be a JSON object"):
        send(recipes(family)["linear"], tokenizer_folder=donor, progress=lambda *done: seen.append(done))
    assert not seen and [path.name for path in tmp_path.iterdir()] == ["donor"]


def test_every_file_and_both_folders_are_on_the_disk_in_their_order(family, send, tmp_path, monkeypatch):
    synced, real, rename = [], os.fsync, os.rename

    def record(handle):
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    def renamed(*paths):
        synced.append("renamed")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "rename", renamed)
    send(recipes(family)["linear"], max_shard_bytes=30_000)
    out = tmp_path / "out"
    assert synced[-3:] == [out.stat().st_ino, "renamed", tmp_path.stat().st_ino]
    assert {path.stat().st_ino for path in out.iterdir()} <= set(synced[:-3])
    assert (out / "model.safetensors.index.json").is_file()


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFullError), (errno.EIO, OSError)])
def test_a_disk_that_fails_in_the_middle_leaves_no_folder(family, send, tmp_path, monkeypatch, number, error):
    real, count = ShardWriter.write, [0]

    def failing(self, data):
        count[0] += 1
        if count[0] == 12:
            raise OSError(number, "the disk")
        real(self, data)

    monkeypatch.setattr(ShardWriter, "write", failing)
    with pytest.raises(error):
        send(recipes(family)["linear"])
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_tensor_and_may_stop_the_export(family, send, tmp_path):
    seen: list[tuple[int, int]] = []
    recipe = recipes(family)["linear"]
    total = len(output_tensors(recipe, family.parents().headers))

    def stop(done, of):
        seen.append((done, of))
        if done == 5:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        send(recipe, progress=stop)
    assert seen == [(i, total) for i in range(1, 6)]
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_overflows_stops_the_export(family, send, tmp_path):
    with pytest.raises(NonFiniteWeightsError, match=r"embed_tokens"):
        send(family.merge("linear", save_dtype="float16", scale=1e7))
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_over_the_memory_limit_is_refused_before_anything_is_written(family, send, tmp_path):
    with pytest.raises(OutOfMemoryError) as caught:
        send(recipes(family)["ties"], max_memory=1000)
    assert caught.value.where in {t.name for t in output_tensors(recipes(family)["ties"], family.parents().headers)}
    assert list(tmp_path.iterdir()) == []
    assert send(recipes(family)["ties"], max_memory=2**21).parameters > 0


def test_a_narrow_memory_limit_changes_no_byte(family, send, tmp_path):
    digests = set()
    for limit in (2**21, None):
        digests.add(send(recipes(family)["ties"], max_memory=limit).weights_digest)
        (tmp_path / "out").rename(tmp_path / f"out{limit}")
    assert len(digests) == 1


def test_a_disk_without_room_is_refused_before_the_first_weight_is_computed(family, send, tmp_path, monkeypatch):
    needed = sum(tensor_size(info) for info in output_tensors(recipes(family)["linear"], family.parents().headers))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(total=2 * needed, used=needed + 1, free=needed - 1))
    seen = []
    with pytest.raises(DiskFullError, match=rf"{needed} bytes .* has {needed - 1}"):
        send(recipes(family)["linear"], progress=lambda *done: seen.append(done))
    assert not seen and list(tmp_path.iterdir()) == []


def test_an_export_leaves_nothing_of_the_parents_in_memory(family, tmp_path):
    parents = family.parents()
    export(recipes(family)["ties"], parents, tmp_path / "out", tokenizer_folder=family.folder / "base")
    assert parents.kept_bytes == 0


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json"])
def test_a_donor_that_links_outside_is_refused_before_anything_is_written(family, send, tmp_path, name):
    donor = tmp_path / "donor"
    donor.mkdir()
    (tmp_path / "secret").write_text("{}")
    (donor / name).symlink_to(tmp_path / "secret")
    with pytest.raises(PathNotAllowedError, match=name):
        send(recipes(family)["linear"], tokenizer_folder=donor)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["donor", "secret"]
    assert name in {
        file.name for file in send(recipes(family)["linear"], tokenizer_folder=donor, roots=[tmp_path]).files
    }
