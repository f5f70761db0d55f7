import pytest
from pydantic import TypeAdapter, ValidationError

from core.architectures import architecture_of
from core.errors import SelectorError
from core.selectors import Selectors, select, touches

LLAMA = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
    *(
        f"model.layers.{layer}.{suffix}"
        for layer in range(3)
        for suffix in (
            "input_layernorm.weight",
            "mlp.down_proj.weight",
            "mlp.up_proj.weight",
            "post_attention_layernorm.weight",
            "self_attn.q_norm.weight",
            "self_attn.q_proj.weight",
        )
    ),
]


def names(*selectors, family="llama", known=LLAMA, depth=3):
    return [target.name for target in select(known, architecture_of(family), depth, selectors)]


def test_norms_are_found_in_every_layer_and_behind_the_stack():
    assert names("norms") == sorted(name for name in LLAMA if "norm" in name)


def test_a_block_is_all_of_a_layer_and_counts_from_either_end():
    assert names("block:-1") == names("block:2") == sorted(name for name in LLAMA if ".layers.2." in name)
    assert names("block:0") != names("block:1")


def test_the_parts_of_a_layer_are_told_apart():
    assert names("ffn:1") == ["model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight"]
    assert names("attn:1") == ["model.layers.1.self_attn.q_norm.weight", "model.layers.1.self_attn.q_proj.weight"]


def test_what_two_selectors_find_is_there_once_with_its_place():
    both = select(LLAMA, architecture_of("llama"), 3, ("norms", "block:0"))
    assert len({target.name for target in both}) == len(both) == 7 + 6 - 3 + 3
    norm = next(target for target in both if target.name == "model.norm.weight")
    assert (norm.kind, norm.layer) == ("model.norm.weight", -1)
    query = next(target for target in both if target.name.endswith("q_proj.weight"))
    assert (query.kind, query.layer) == ("self_attn.q_proj.weight", 0)


@pytest.mark.parametrize(
    ("family", "layer", "norms", "attention", "mlp"),
    [
        ("gpt2", "transformer.h.0.", ["ln_1.weight"], ["attn.c_attn.weight"], ["mlp.c_fc.weight"]),
        ("gpt_neox", "gpt_neox.layers.0.", ["input_layernorm.weight"], ["attention.dense.weight"], ["mlp.dense_h_to_4h.weight"]),
        ("gemma2", "model.layers.0.", ["pre_feedforward_layernorm.weight"], ["self_attn.o_proj.weight"], ["mlp.gate_proj.weight"]),
    ],
)  # fmt: skip
def test_other_families_call_them_by_other_names(family, layer, norms, attention, mlp):
    known = [layer + suffix for suffix in (*norms, *attention, *mlp)]
    found = [names(each, family=family, known=known, depth=1) for each in ("norms", "attn:0", "ffn:0")]
    assert found == [[layer + suffix] for suffix in (norms[0], attention[0], mlp[0])]


@pytest.mark.parametrize("selector", ["block:3", "block:-4", "ffn:99"])
def test_a_selector_that_finds_nothing_is_refused(selector):
    with pytest.raises(SelectorError, match="finds no tensor"):
        names(selector)


def test_the_embedding_is_never_selected_even_where_no_layers_are_known():
    with pytest.raises(SelectorError):
        names("block:0", family="unknown-family", depth=0)
    assert names("norms", family="unknown-family", depth=0) == names("norms")


@pytest.mark.parametrize("selectors", [(), ("all",), ("block:",), ("block:01",), ("norms", "norms")])
def test_malformed_selectors_are_refused(selectors):
    with pytest.raises(ValidationError):
        TypeAdapter(Selectors).validate_python(selectors)


def test_which_layers_are_touched_is_told_without_names():
    assert [touches(("block:-1", "ffn:0"), layer, 4) for layer in range(4)] == [True, False, False, True]
    assert all(touches(("norms",), layer, 4) for layer in range(4))
