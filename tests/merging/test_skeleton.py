from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import CheckpointError
from merging.skeleton import build_skeleton

CONFIG = {
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "torch_dtype": "bfloat16",
    "dtype": "bfloat16",
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "rope", [{}, {"rope_theta": 500.0}, {"rope_parameters": SCALED}], ids=["default", "base", "llama3"]
)
def test_buffers_are_those_of_a_loaded_model(tmp_path, rope):
    skeleton = build_skeleton({**CONFIG, **rope}, torch.bfloat16, CPU, "sdpa")
    AutoModelForCausalLM.from_config(skeleton.model.config).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ours, theirs = dict(skeleton.model.named_buffers()), dict(loaded.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(ours[name].dtype == theirs[name].dtype for name in ours)


def test_a_skeleton_holds_no_weights_and_one_layer_index_per_layer():
    model = build_skeleton(CONFIG, torch.bfloat16, CPU, "eager").model
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(("tied", "places"), [(True, 2), (False, 1)])
def test_a_tied_head_is_a_second_place_of_the_embedding(tied, places):
    skeleton = build_skeleton({**CONFIG, "tie_word_embeddings": tied}, torch.float32, CPU, "sdpa")
    assert len(skeleton.places["model.embed_tokens.weight"]) == places
    assert ("lm_head.weight" in skeleton.places) == (not tied)


def test_tensors_that_are_not_the_models_are_refused_by_name():
    skeleton = build_skeleton(CONFIG, torch.float32, CPU, "sdpa")
    parameters = {
        name: torch.nn.Parameter(torch.zeros_like(module._parameters[attribute], device="cpu"), requires_grad=False)
        for name, ((module, attribute), *_) in skeleton.places.items()
    }
    extra = {**parameters, "model.layers.9.bias": parameters["model.norm.weight"]}
    short = {name: p for name, p in parameters.items() if name != "model.norm.weight"}
    for wrong, name in ((extra, "model.layers.9.bias"), (short, "model.norm.weight")):
        with pytest.raises(CheckpointError) as caught:
            skeleton.fill(wrong)
        assert caught.value.where == name
    skeleton.fill(parameters)
    assert skeleton.model(torch.tensor([[1, 2]])).logits.shape == (1, 2, 16)
    skeleton.empty()
    assert {p.device.type for p in skeleton.model.parameters()} == {"meta"}
