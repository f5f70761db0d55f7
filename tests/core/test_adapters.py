import json
import math
import struct
from pathlib import Path

import pytest
from families import header, model

from core.adapter_config import parse_config
from core.adapters import Adapter, AdapterHeader, adapt, adapter_digest, is_adapter, read_adapter
from core.errors import (
    CheckpointError,
    HuarizoError,
    MissingCheckpointError,
    ParentsDoNotFitError,
    PickleCheckpointError,
)
from core.model import TensorInfo

PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
Q = "model.layers.0.self_attn.q_proj"


def write(folder: Path, shapes: dict[str, tuple[int, ...]], config=None) -> Path:
    """An adapter of zeros: its shapes by the names that PEFT gives them, less the common beginning."""
    entries, place = {}, 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        entries[f"base_model.model.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(entries).encode()
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(place))
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN if config is None else config))
    return folder


def lora(module=Q, inputs=8, outputs=8, r=2) -> dict[str, tuple[int, ...]]:
    return {f"{module}.lora_A.weight": (r, inputs), f"{module}.lora_B.weight": (outputs, r)}


def adapter(folder: Path) -> Adapter:
    found = read_adapter(folder)
    return Adapter(name="lora", ref="local:lora", weights_digest=adapter_digest(folder, found), header=found)


def test_the_header_says_which_tensors_change_and_by_how_much(tmp_path):
    shapes = {**lora(), "model.embed_tokens.lora_embedding_A": (2, 32), "model.embed_tokens.lora_embedding_B": (8, 2)}
    found = read_adapter(write(tmp_path, {**shapes, "lm_head.weight": (32, 8)}))
    assert {(c.target, c.kind, c.scale) for c in found.changes} == {
        (f"{Q}.weight", "linear", 2.0),
        ("model.embed_tokens.weight", "embedding", 2.0),
        ("lm_head.weight", "whole", 1.0),
    }
    assert found.parameters == 2 * 8 * 2 + 2 * 32 + 8 * 2 + 32 * 8
    assert AdapterHeader.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("changes", "module", "rank", "scale"),
    [
        ({}, Q, 2, 2.0),
        ({"use_rslora": True}, Q, 2, 4 / math.sqrt(2)),
        ({"use_rslora": None}, Q, 2, 2.0),
        ({"use_rslora": False}, Q, 2, 2.0),
        ({"alpha_pattern": {"q_proj": 3}}, Q, 2, 1.5),
        ({"alpha_pattern": {"q_proj": 3}}, Q.replace("q_proj", "k_proj"), 2, 2.0),
        ({"alpha_pattern": {"q": 3}}, Q, 2, 2.0),
        ({"rank_pattern": {r"layers.\d+.self_attn.q_proj": 8}}, Q, 8, 0.5),
        ({"rank_pattern": {r"^layers.\d+.self_attn.q_proj": 8}}, Q, 2, 2.0),
        ({"rank_pattern": {"k_proj|q_proj": 4, "q_proj": 8}, "use_rslora": True}, Q, 4, 2.0),
    ],
)
def test_ranks_and_scales_of_modules_are_looked_up_as_peft_does(changes, module, rank, scale):
    config = parse_config({**PLAIN, **changes})
    assert (config.rank(module), config.scale(module)) == (rank, pytest.approx(scale))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"peft_type": "LOHA"}, "peft_type"),
        ({**PLAIN, "use_dora": True}, "use_dora"),
        ({**PLAIN, "lora_bias": True}, "lora_bias"),
        ({**PLAIN, "layer_replication": [[0, 2]]}, "layer_replication"),
        ({**PLAIN, "target_parameters": ["experts.w"]}, "target_parameters"),
        ({**PLAIN, "trainable_token_indices": [3]}, "trainable_token_indices"),
        ({**PLAIN, "init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({**PLAIN, "init_lora_weights": ["olora"]}, "init_lora_weights"),
        ({**PLAIN, "loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ({**PLAIN, "something_new": 1}, "something_new"),
        ({**PLAIN, "r": 0}, "r"),
        ({**PLAIN, "r": True}, "r"),
        ({**PLAIN, "lora_alpha": "8"}, "lora_alpha"),
        ({**PLAIN, "use_rslora": 1}, "use_rslora"),
        ({**PLAIN, "use_rslora": 0}, "use_rslora"),
        ({**PLAIN, "use_rslora": "true"}, "use_rslora"),
        ({**PLAIN, "rank_pattern": [1]}, "rank_pattern"),
        ({**PLAIN, "rank_pattern": {"(a+)+": 2}}, "rank_pattern"),
        ({**PLAIN, "rank_pattern": {r"\d+\d+\d+": 2}}, "rank_pattern"),
        ({**PLAIN, "alpha_pattern": {"q_proj": None}}, "q_proj"),
    ],
)
def test_whatever_is_no_plain_lora_is_refused_by_its_field_with_the_way_out(config, field):
    with pytest.raises(CheckpointError) as caught:
        parse_config(config)
    assert caught.value.where == field and "with PEFT" in caught.value.message


def test_an_adapter_that_changes_nothing_is_refused_for_that():
    with pytest.raises(CheckpointError, match="with which it changes nothing") as caught:
        parse_config({**PLAIN, "lora_alpha": 0})
    assert caught.value.where == "lora_alpha"


def test_fields_without_a_value_and_those_of_training_say_nothing():
    quiet = {
        "use_dora": False,
        "layer_replication": None,
        "loftq_config": {},
        "lora_dropout": 0.1,
        "init_lora_weights": True,
    }
    assert parse_config({**PLAIN, **quiet}) == parse_config(PLAIN)


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ({f"{Q}.lora_A.weight": (2, 8)}, "only one of A and B"),
        ({f"{Q}.lora_A.weight": (3, 8), f"{Q}.lora_B.weight": (8, 3)}, "rank 2"),
        ({f"{Q}.lora_A.weight": (2,), f"{Q}.lora_B.weight": (8, 2)}, "rank 2"),
        ({**lora(), f"{Q}.lora_magnitude_vector": (8,)}, "plain LoRA"),
        ({**lora(), f"{Q}.lora_B.bias": (8,)}, "plain LoRA"),
        ({}, "changes nothing"),
    ],
)
def test_tensors_that_make_no_lora_are_refused(tmp_path, shapes, what):
    with pytest.raises(CheckpointError, match=what):
        read_adapter(write(tmp_path, shapes))


def test_pickles_are_refused_and_missing_weights_named(tmp_path):
    (write(tmp_path, lora()) / "adapter_model.safetensors").unlink()
    with pytest.raises(MissingCheckpointError, match=r"adapter_model\.safetensors"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(PickleCheckpointError, match="safe_serialization"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"peft_type": {}}', '{"peft_type": "LORA", "r": 1e400}'])
def test_a_damaged_config_is_refused_with_a_code(tmp_path, text):
    (write(tmp_path, lora()) / "adapter_config.json").write_text(text)
    with pytest.raises(HuarizoError) as caught:
        read_adapter(tmp_path)
    assert caught.value.code in ("bad_checkpoint", "truncated_checkpoint")


def test_a_folder_with_whole_weights_is_a_model_whatever_lies_beside_them(tmp_path):
    folder = write(tmp_path, lora())
    (folder / "config.json").write_text("{}")
    assert is_adapter(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert not is_adapter(folder)


def test_an_adapted_model_has_its_bases_tensors_those_that_change_in_float32(tmp_path):
    base = model("base")
    halves = tuple(info.evolve(dtype="BF16") for info in base.header.tensors)
    base = base.evolve(header=base.header.evolve(tensors=halves))
    found = adapt(base, adapter(write(tmp_path, lora())), name="maths")
    assert (found.name, found.ref) == ("maths", "local:base")
    assert found.header.shapes == base.header.shapes
    assert [t.name for t in found.header.tensors if t.dtype == "F32"] == [f"{Q}.weight"]
    assert found.header.config_digest == base.header.config_digest
    with pytest.raises(CheckpointError, match="has the adapter 'lora' already"):
        adapt(found, found.adapter)


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        (lora("model.layers.9.self_attn.q_proj"), "which its base has not"),
        (lora(inputs=9), "shape (8, 9)"),
        ({"lm_head.weight": (40, 8)}, "new tokens"),
    ],
)
def test_an_adapter_of_another_model_is_refused(tmp_path, shapes, what):
    with pytest.raises(ParentsDoNotFitError) as caught:
        adapt(model("base"), adapter(write(tmp_path, shapes)))
    assert what in caught.value.message


@pytest.mark.parametrize("name", ["lm_head", "model.embed_tokens"])
def test_where_embedding_and_output_are_one_matrix_neither_is_changed_alone(tmp_path, name):
    tied = model("base")
    tied = tied.evolve(header=header(tied=True, config={"tie_word_embeddings": True}))
    with pytest.raises(ParentsDoNotFitError, match="one matrix as embedding and output"):
        adapt(tied, adapter(write(tmp_path, {f"{name}.weight": (32, 8)})))


def test_names_without_the_familys_prefix_are_found(tmp_path):
    infos = (TensorInfo(name="transformer.h.0.attn.c_attn.weight", dtype="F32", shape=(8, 24)),)
    bare = header(model_type="gpt2", config={"n_layer": 1})
    base = model("base").evolve(header=bare.evolve(tensors=infos))
    found = adapt(base, adapter(write(tmp_path, lora("h.0.attn.c_attn", 8, 24))))
    assert found.header.shapes == {"transformer.h.0.attn.c_attn.weight": (8, 24)}
