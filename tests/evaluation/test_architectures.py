import copy

import pytest
import torch

from evaluation.architectures import caches_layers_apart, logits, refusal, tree_masks

#: Two texts that share their beginning: node 0 is the root, 1-2 and 3 are its branches; then padding.
END = torch.tensor([[4, 3, 3, 4, 5]])
DEPTH = torch.tensor([[0, 1, 2, 1, 0]])
SEES = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_a_node_sees_its_ancestors_and_itself(make_architecture):
    assert tree_masks(make_architecture("llama"), END, DEPTH, 3)[0, 0].int().tolist() == SEES


def test_over_a_trunk_every_node_sees_all_of_it_too(make_architecture):
    mask = tree_masks(make_architecture("phi3"), END, DEPTH + 2, 5, trunk=2)[0, 0].int()
    assert mask[:, :2].tolist() == [[1, 1]] * 5
    assert mask[:, 2:].tolist() == SEES


def test_a_window_counts_places_in_the_text_not_in_the_row(make_architecture):
    mask = tree_masks(make_architecture("mistral-window", sliding_window=2), END, DEPTH + 2, 5, trunk=2)[0, 0].int()
    assert mask[:, 2:].tolist() == [row if i != 2 else [0, 1, 1, 0, 0] for i, row in enumerate(SEES)]
    assert mask[:4, :2].tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]


def test_layers_of_two_attention_types_get_a_mask_each_and_one_object_where_the_window_is_wide(make_architecture):
    model = make_architecture("gemma3", sliding_window=2)
    narrow = tree_masks(model, END, DEPTH, 3)
    assert set(narrow) == {"full_attention", "sliding_attention"}
    assert narrow["full_attention"][0, 0].int().tolist() == SEES
    assert narrow["sliding_attention"][0, 0, 2].int().tolist() == [0, 1, 1, 0, 0]
    model.config.sliding_window = 3
    wide = tree_masks(model, END, DEPTH, 3)
    assert wide["full_attention"] is wide["sliding_attention"]


def test_eager_attention_is_given_what_it_adds_to_its_scores(make_architecture):
    mask = tree_masks(make_architecture("gemma2"), END, DEPTH, 3)["full_attention"][0, 0]
    assert mask.dtype == torch.float32
    assert (mask == 0).int().tolist() == SEES
    assert mask.min() == torch.finfo(torch.float32).min


@pytest.mark.parametrize("name", ["gemma2", "gemma3-eager", "gpt2", "qwen2"])
def test_logits_of_chosen_rows_are_those_of_the_model_s_own_head(name, make_architecture):
    model = make_architecture(name)
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        hidden = model.base_model(tokens).last_hidden_state[0]
        assert torch.equal(logits(model, hidden), model(tokens).logits[0])
        bare = model.get_output_embeddings()(hidden)
    assert torch.equal(logits(model, hidden), bare) == (getattr(model.config, "final_logit_softcapping", None) is None)


def test_what_takes_no_tree_masks_is_refused_with_the_reason(make_architecture):
    assert "'granite' is not known" in refusal(make_architecture("granite"), 10).reason
    flash = make_architecture("llama")
    flash.config._attn_implementation = "flash_attention_2"
    assert "'flash_attention_2'" in refusal(flash, 10).reason
    seer = make_architecture("gemma3")
    seer.config.use_bidirectional_attention = True
    assert "looks ahead" in refusal(seer, 10).reason
    chunked = make_architecture("qwen2-window")
    chunked.config.layer_types = ["full_attention", "chunked_attention"]
    assert "chunked_attention" in refusal(chunked, 10).reason
    assert refusal(make_architecture("gemma2"), 10_000) is None


@pytest.mark.parametrize(
    ("rotary", "moves"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, True),
        ({"rope_type": "linear", "factor": 2.0}, False),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}, False),
    ],
)
def test_rotary_embeddings_that_follow_the_longest_text_are_refused_from_the_trained_length_on(
    rotary, moves, make_architecture
):
    model = make_architecture("llama", rope_parameters=rotary | {"rope_theta": 1e4}, max_position_embeddings=32)
    assert refusal(model, 31) is None
    found = refusal(model, 32)
    assert (found is not None and found.by_length) == moves
    assert found is None or "'dynamic'" in found.reason


def test_rotary_embeddings_are_looked_at_for_every_attention_type(make_architecture):
    rotary = {
        "full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    model = make_architecture("gemma3", rope_parameters=rotary)
    assert refusal(model, 511) is None
    assert refusal(model, 512).by_length


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma3"])
def test_layers_cache_apart_unless_one_object_stands_twice(name, make_architecture):
    model = copy.deepcopy(make_architecture(name))
    assert caches_layers_apart(model)
    layers = model.base_model.h if name == "gpt2" else model.base_model.layers
    layers.append(layers[0])
    assert not caches_layers_apart(model)
