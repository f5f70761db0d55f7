"""Every family: read, merged, re-stacked, exported, and opened again by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from core.architectures import architectures
from core.checkpoint import read_header, weights_digest
from core.errors import CheckpointError
from core.recipe import identity
from merging.export import export
from merging.resident import Resident
from merging.resident import weights_digest as built_digest

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {**SIZES, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 3}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma2": GEMMA,
    "gemma3_text": {**GEMMA, "sliding_window_pattern": 3},
    "gpt2": {
        "vocab_size": 64,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gpt_neox": {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
    "llama": SIZES,
    "mistral": SIZES,
    "phi3": SIZES,
    "qwen2": {**SIZES, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
    "qwen3": {**SIZES, "head_dim": 16, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
}
FAMILIES = sorted(CONFIGS)
#: Duplicated layers, moved to places whose kind of attention was another one.
STACK = (3, 0, 2, 1, 1, 2, 3)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, family, save_tokenizer):
    """For each family a random model `base` and a fine-tune `a`: `zoo("phi3")`."""
    made: dict[str, Any] = {}

    def of(kind: str) -> Any:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            with torch.random.fork_rng():
                torch.manual_seed(1)
                model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind]))
                for name in ("base", "a"):
                    for parameter in model.parameters():
                        parameter.data += 0.05 * torch.randn(parameter.shape)
                    model.save_pretrained(folder / name)
                    save_tokenizer(folder / name)
            made[kind] = type(family)(folder, ("base", "a"))
        return made[kind]

    return of


def logits(model: Any, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(tokens, **options).logits


def layers_of(model: Any) -> Any:
    return next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))


def attention_of(layer: torch.nn.Module) -> Any:
    return next(module for module in layer.modules() if hasattr(module, "layer_idx"))


def restacked(folder: Path, layers: tuple[int, ...]) -> Any:
    """The reference: transformers' own modules put in another order, each given its new index."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    stack = layers_of(model)
    state = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in stack]
    kinds = getattr(model.config, "layer_types", None)
    config = json.loads((folder / "config.json").read_text())
    config[architectures()[config["model_type"]].layers_key] = len(layers)
    if kinds is not None:
        config["layer_types"] = [kinds[layer] for layer in layers]
    outside = {k: v for k, v in model.state_dict().items() if ".0." not in k and not _in_stack(k)}
    again = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    again.load_state_dict(outside, strict=False)
    for layer, source in zip(layers_of(again), layers, strict=True):
        layer.load_state_dict(state[source])
    return again


def _in_stack(name: str) -> bool:
    return any(part.isdigit() for part in name.split("."))


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
    expected = restacked(models.folder / "base", STACK)
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
    assert torch.equal(logits(built.model, tokens), logits(restacked(models.folder / "base", (0, 1, 1, 2, 3)), tokens))


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
