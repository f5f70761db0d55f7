"""Every family: read, merged, re-stacked, exported, and opened again by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from zoo import CONFIGS, FAMILIES, attention_of, layers_of, logits, reference

from core.checkpoint import read_header, weights_digest
from core.errors import CheckpointError
from core.recipe import identity
from merging.export import export
from merging.resident import Resident
from merging.resident import weights_digest as built_digest

#: Duplicated layers, moved to places whose kind of attention was another one.
STACK = (3, 0, 2, 1, 1, 2, 3)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_model_built_from_itself_is_that_model_bit_for_bit(zoo, tokens, kind):
    models = zoo(kind)
    built = Resident(models.parents()).build(models.recipe(**_identity("base")))
    assert torch.equal(
        logits(built.model, tokens), logits(AutoModelForCausalLM.from_pretrained(models.folder / "base"), tokens)
    )
    assert built_digest(built) == models.models["base"].weights_digest


def _identity(name: str) -> dict[str, Any]:
    recipe = identity(name, save_dtype="float32")
    return {"sources": (name,), "merge": recipe.merge, "save_dtype": "float32"}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_linear_merge_is_the_mean_of_every_tensor(zoo, tokens, kind):
    models = zoo(kind)
    built = Resident(models.parents()).build(models.recipe(merge={"method": "linear"}, save_dtype="float32"))
    one, other = models.tensors("base"), models.tensors("a")
    assert built.tensors.keys() == one.keys()
    for name, tensor in built.tensors.items():
        torch.testing.assert_close(tensor, (one[name] + other[name]) / 2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_restacked_model_computes_what_its_layers_do_in_the_new_order(zoo, tokens, kind, use_cache):
    models = zoo(kind)
    built = Resident(models.parents()).build(models.stack("base", STACK))
    assert [attention_of(layer).layer_idx for layer in layers_of(built.model)] == list(range(len(STACK)))
    expected = reference([(models.folder / "base", layer) for layer in STACK])
    assert torch.equal(logits(built.model, tokens, use_cache=use_cache), logits(expected, tokens, use_cache=use_cache))


@pytest.mark.parametrize("form", ["identity", "linear", "stack"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_an_export_opened_by_transformers_computes_what_the_resident_model_did(zoo, tokens, tmp_path, kind, form):
    models = zoo(kind)
    recipe = {
        "identity": lambda: models.recipe(**_identity("base")),
        "linear": lambda: models.recipe(merge={"method": "linear"}, save_dtype="float32"),
        "stack": lambda: models.stack("base", STACK),
    }[form]()
    built = Resident(models.parents()).build(recipe)
    info = export(recipe, models.parents(), tmp_path / "out", tokenizer_folder=models.folder / "base")
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert torch.equal(logits(loaded, tokens), logits(built.model, tokens))
    assert read_header(tmp_path / "out").layers == len(recipe.layers)
    assert weights_digest(tmp_path / "out") == info.weights_digest
    tied = read_header(models.folder / "base").architecture.tied
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is tied


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        ("gemma2", "fssffsf"),
        ("gemma3_text", "ssfssfs"),
        ("qwen2", "sfsffss"),
        ("qwen3", "sfsffss"),
    ],
)
@pytest.mark.parametrize("implicit", [True, False])
def test_every_layer_keeps_its_kind_of_attention_wherever_it_goes(zoo, tmp_path, kind, kinds, implicit):
    models = zoo(kind)
    if implicit:  # as configs were written before `layer_types`
        models = _with_config(models, tmp_path, lambda config: config.pop("layer_types"), kind)
    expected = ["full_attention" if letter == "f" else "sliding_attention" for letter in kinds]
    built = Resident(models.parents()).build(models.stack("base", STACK))
    assert list(built.model.config.layer_types) == expected


def _with_config(models: Any, folder: Path, change: Any, kind: str) -> Any:
    for file in (models.folder / "base").iterdir():
        (folder / "base").mkdir(exist_ok=True)
        (folder / "base" / file.name).write_bytes(file.read_bytes())
    path = folder / "base" / "config.json"
    config = {**json.loads(path.read_text()), **CONFIGS[kind]}
    change(config)
    path.write_text(json.dumps(config))
    return type(models)(folder, ("base",))


def test_gpt2_checkpoints_of_the_bare_stack_with_old_buffers_are_the_same_model(zoo, tokens, tmp_path):
    models = zoo("gpt2")
    (tmp_path / "old").mkdir()
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in models.tensors("base").items()}
    for layer in range(4):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(64, 64, dtype=torch.uint8).tril()[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(float("-inf"), dtype=torch.float16)
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    save_file(tensors, tmp_path / "old/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "old/config.json").write_bytes((models.folder / "base/config.json").read_bytes())
    header = read_header(tmp_path / "old")
    assert header.tensors == models.models["base"].header.tensors
    assert weights_digest(tmp_path / "old") == models.models["base"].weights_digest
    old = type(models)(tmp_path, ("old",))
    built = Resident(old.parents()).build(old.stack("old", (0, 1, 1, 2, 3)))
    assert torch.equal(
        logits(built.model, tokens),
        logits(reference([(models.folder / "base", layer) for layer in (0, 1, 1, 2, 3)]), tokens),
    )


def test_neox_buffers_are_no_weights_and_the_head_has_one_name(zoo, tmp_path):
    models = zoo("gpt_neox")
    tensors = models.tensors("base")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    for layer in range(4):
        tensors[f"gpt_neox.layers.{layer}.attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        tensors[f"gpt_neox.layers.{layer}.attention.masked_bias"] = torch.tensor(-1e9)
        tensors[f"gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(2)
    (tmp_path / "old").mkdir()
    save_file(tensors, tmp_path / "old/model.safetensors")
    (tmp_path / "old/config.json").write_bytes((models.folder / "base/config.json").read_bytes())
    assert read_header(tmp_path / "old").tensors == models.models["base"].header.tensors


def test_a_tied_head_that_differs_from_the_embedding_is_a_weight_of_its_own(zoo, tokens, tmp_path):
    models = zoo("gpt2")
    tensors = models.tensors("base")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1.0
    (tmp_path / "odd").mkdir()
    save_file(tensors, tmp_path / "odd/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "odd/config.json").write_bytes((models.folder / "base/config.json").read_bytes())
    odd = type(models)(tmp_path, ("odd",))
    assert odd.models["odd"].header.head_tensors()[-1] == "lm_head.weight"
    built = Resident(odd.parents()).build(odd.stack("odd", (0, 1, 2, 3)))
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "odd")
    assert torch.equal(logits(built.model, tokens), logits(reference, tokens))


def test_a_head_that_is_neither_stored_nor_tied_is_missing(zoo, tmp_path):
    models = zoo("llama")
    tensors = models.tensors("base")
    del tensors["lm_head.weight"]
    (tmp_path / "odd").mkdir()
    save_file(tensors, tmp_path / "odd/model.safetensors")
    (tmp_path / "odd/config.json").write_bytes((models.folder / "base/config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        read_header(tmp_path / "odd")
    assert load_file(tmp_path / "odd/model.safetensors").keys() == tensors.keys()


def _unknown(kind: str, folder: Path, save_tokenizer: Any, written_as: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        sizes = {key: value for key, value in CONFIGS["llama"].items() if key != "num_key_value_heads"}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
        for name in ("base", "a"):
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape)
            model.save_pretrained(folder / name)
            save_tokenizer(folder / name)
            config = json.loads((folder / name / "config.json").read_text())
            (folder / name / "config.json").write_text(json.dumps(config | {"model_type": written_as}))


def test_a_family_that_only_transformers_knows_is_merged_scored_and_exported(tmp_path, family, save_tokenizer, tokens):
    _unknown("olmo2", tmp_path, save_tokenizer, "olmo2")
    models = type(family)(tmp_path, ("base", "a"))
    recipe = models.recipe(merge={"method": "slerp", "params": {"t": [0.25, 1.0]}}, save_dtype="float32")
    built = Resident(models.parents()).build(recipe)
    export(recipe, models.parents(), tmp_path / "out", tokenizer_folder=tmp_path / "base")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(loaded).__name__ == "Olmo2ForCausalLM"
    assert torch.equal(logits(loaded, tokens), logits(built.model, tokens))
    same = Resident(models.parents()).build(models.recipe(**_identity("a")))
    assert built_digest(same) == models.models["a"].weights_digest


def test_a_family_that_nobody_knows_is_exported_but_not_scored(tmp_path, family, save_tokenizer):
    _unknown("llama", tmp_path, save_tokenizer, "mystery")
    models = type(family)(tmp_path, ("base", "a"))
    recipe = models.recipe(merge={"method": "linear"}, save_dtype="float32")
    with pytest.raises(CheckpointError, match="export the candidate"):
        Resident(models.parents()).build(recipe)
    export(recipe, models.parents(), tmp_path / "out", tokenizer_folder=tmp_path / "base")
    mean = {name: (tensor + models.tensors("a")[name]) / 2 for name, tensor in models.tensors("base").items()}
    written = load_file(tmp_path / "out/model.safetensors")
    assert written.keys() == mean.keys()
    for name, tensor in written.items():
        torch.testing.assert_close(tensor, mean[name], rtol=1e-6, atol=1e-7)
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "mystery"
