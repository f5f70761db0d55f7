from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import MissingCheckpointError, ParentsDoNotFitError
from core.model import Header, Model, TensorInfo
from core.noun import canonical_json
from core.recipe import Recipe, Source, resolve
from core.recipe.output import output_config, output_tensors, walk

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 3,
    "bos_token_id": 1,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
    "transformers_version": "4.0.0",
    "_name_or_path": "/somewhere",
    "auto_map": {"AutoModel": "evil.py"},
}
SUFFIXES = ("input_layernorm.weight", "mlp.up_proj.weight")


def model(name: str, *, tied: bool = False, layers: int = 3, **config: Any) -> Model:
    tensors = [TensorInfo(name="model.embed_tokens.weight", dtype="F32", shape=(8, 4))]
    tensors += [TensorInfo(name="model.norm.weight", dtype="F32", shape=(4,))]
    if not tied:
        tensors.append(TensorInfo(name="lm_head.weight", dtype="F32", shape=(8, 4)))
    for layer in range(layers):
        tensors.append(TensorInfo(name=f"model.layers.{layer}.{SUFFIXES[0]}", dtype="F32", shape=(4,)))
        tensors.append(TensorInfo(name=f"model.layers.{layer}.{SUFFIXES[1]}", dtype="F32", shape=(6, 4)))
    fields = {**CONFIG, "num_hidden_layers": layers, **config}
    header = Header(
        model_type=str(fields["model_type"]),
        config=canonical_json(fields),
        layers=layers,
        vocab_size=8,
        rope_theta=10000.0,
        tensors=tuple(sorted(tensors, key=lambda t: t.name)),
    )
    return Model(name=name, ref=f"local:{name}", weights_digest=name * 64, header=header)


def resolved(models: list[Model], **fields: Any):
    named = {m.name: m for m in models}
    sources = fields.pop("sources", tuple(Source(name=name, model=name) for name in named))
    recipe = resolve(Recipe(sources=sources, **fields), named)
    return recipe, {m.weights_digest: m.header for m in models}


def stack(source: str, layers: list[int]) -> dict[str, Any]:
    return {"slices": ({"sources": [{"source": source, "layers": layers}]},)}


def test_output_tensors_carry_the_new_index_the_save_dtype_and_the_old_shape():
    recipe, headers = resolved([model("a")], **stack("a", [2, 2]), save_dtype="bfloat16")
    assert [(t.name, t.dtype, t.shape) for t in output_tensors(recipe, headers)] == [
        ("model.embed_tokens.weight", "BF16", (8, 4)),
        ("model.layers.0.input_layernorm.weight", "BF16", (4,)),
        ("model.layers.0.mlp.up_proj.weight", "BF16", (6, 4)),
        ("model.layers.1.input_layernorm.weight", "BF16", (4,)),
        ("model.layers.1.mlp.up_proj.weight", "BF16", (6, 4)),
        ("lm_head.weight", "BF16", (8, 4)),
        ("model.norm.weight", "BF16", (4,)),
    ]


def test_a_tensor_knows_its_name_in_each_source():
    a, b = model("a"), model("b")
    part = {"sources": [{"source": "a", "layers": [2]}, {"source": "b", "layers": [0]}], "method": "linear"}
    recipe, _ = resolved([a, b], slices=(part,), save_dtype="float32")
    tensors = {t.name: t for t in walk(recipe)}
    layer = tensors["model.layers.0.mlp.up_proj.weight"]
    architecture = a.header.architecture
    assert [layer.source_name(i, architecture) for i in (0, 1)] == [
        f"model.layers.{i}.mlp.up_proj.weight" for i in (2, 0)
    ]
    assert tensors["lm_head.weight"].source_name(1, architecture) == "lm_head.weight"


def test_the_config_has_the_new_depth_and_dtype_and_nothing_of_where_it_came_from():
    recipe, headers = resolved([model("a")], **stack("a", [0, 1, 2, 1]), save_dtype="bfloat16")
    config = output_config(recipe, headers)
    assert config == {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 4,
        "bos_token_id": 1,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    assert json.loads(canonical_json(config)) == config


@pytest.mark.parametrize("tied", [True, False])
def test_the_embeddings_are_tied_where_no_head_is_written(tied):
    recipe, headers = resolved([model("a", tied=tied)], **stack("a", [0]), save_dtype="float32")
    assert output_config(recipe, headers)["tie_word_embeddings"] is tied


def test_token_ids_come_from_the_tokenizers_donor():
    models = [model("a", bos_token_id=5), model("b", bos_token_id=6)]
    first, headers = resolved(models, merge={"method": "linear"}, save_dtype="float32")
    second, _ = resolved(models, merge={"method": "linear"}, save_dtype="float32", tokenizer="b")
    assert output_config(first, headers)["bos_token_id"] == 5
    assert output_config(second, headers)["bos_token_id"] == 6


def test_layer_types_travel_with_their_layers_through_nested_recipes():
    kinds = ["full_attention", "sliding_attention", "other_attention"]
    a = model("a", layer_types=kinds)
    inner = Recipe(sources=(Source(name="a", model="a"),), **stack("a", [2, 0]), save_dtype="float32")
    recipe, headers = resolved(
        [a], sources=(Source(name="inner", recipe=inner), Source(name="a", model="a")), save_dtype="float32",
        slices=(
            {"sources": [{"source": "inner", "layers": [1, 0]}]},
            {"sources": [{"source": "a", "layers": [1]}]},
        ),
    )  # fmt: skip
    assert output_config(recipe, headers)["layer_types"] == [kinds[0], kinds[2], kinds[1]]


def test_sliding_layers_that_a_qwen2_config_only_implies_are_spelt_out():
    a = model("a", model_type="qwen2", use_sliding_window=True, max_window_layers=2)
    recipe, headers = resolved([a], **stack("a", [2, 0, 2]), save_dtype="float32")
    assert output_config(recipe, headers)["layer_types"] == ["sliding_attention", "full_attention", "sliding_attention"]


def test_layer_types_that_only_some_parents_state_are_left_out():
    models = [model("a", layer_types=["full_attention"] * 3), model("b")]
    parts = ({"sources": [{"source": "a", "layers": [0]}]}, {"sources": [{"source": "b", "layers": [1]}]})
    recipe, headers = resolved(models, slices=parts, save_dtype="float32")
    assert "layer_types" not in output_config(recipe, headers)


def test_rope_is_told_in_the_words_of_transformers_4_and_5():
    nested = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    a = model("a", rope_parameters=nested)
    a = a.evolve(
        header=a.header.evolve(
            config=canonical_json({k: v for k, v in a.header.config_dict.items() if k != "rope_theta"})
        )
    )
    recipe, headers = resolved([a], **stack("a", [0]), save_dtype="float32")
    config = output_config(recipe, headers)
    assert config["rope_parameters"] == nested
    assert config["rope_theta"] == 5e5
    assert config["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}


def test_a_model_without_header_is_named():
    recipe, _ = resolved([model("a")], **stack("a", [0]), save_dtype="float32")
    for function in (output_tensors, output_config):
        with pytest.raises(MissingCheckpointError, match="a" * 64):
            function(recipe, {})


def test_a_source_whose_shape_or_tensors_changed_is_refused_by_name():
    a, b = model("a"), model("b")
    recipe, headers = resolved([a, b], merge={"method": "linear"}, save_dtype="float32")
    for change in (lambda t: [t.evolve(shape=(9, 9))], lambda t: []):
        tensors = tuple(n for t in b.header.tensors for n in (change(t) if t.name == "lm_head.weight" else [t]))
        with pytest.raises(ParentsDoNotFitError) as caught:
            output_tensors(recipe, {**headers, b.weights_digest: b.header.evolve(tensors=tensors)})
        assert caught.value.where == "lm_head.weight"
