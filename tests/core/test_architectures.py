import pytest

from core.architectures import architecture_of, architectures

KNOWN = sorted(architectures())


def test_the_families_of_the_scoring_engine_are_known():
    assert [
        *("gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "phi3", "qwen2", "qwen3"),
    ] == KNOWN


@pytest.mark.parametrize("kind", KNOWN)
def test_a_layers_tensor_is_found_again_by_its_name(kind):
    family = architecture_of(kind)
    assert family.locate(family.layer_tensor(12, "some.weight")) == (12, "some.weight")
    for name in (*family.embed, *family.head, family.layer.replace("{}", "01") + "x"):
        assert family.locate(name) is None


@pytest.mark.parametrize("kind", KNOWN)
def test_names_are_their_own_canonical_form_and_what_is_ignored_has_a_reason(kind):
    family = architecture_of(kind)
    for name in (*family.embed, *family.head, family.layer_tensor(3, "some.weight")):
        assert family.canonical(name) == name
    for suffix, reason in family.ignored.items():
        assert family.canonical(family.layer_tensor(0, suffix)) is None
        assert len(reason.split()) > 3


def test_the_names_of_bare_stacks_and_of_other_versions_stand_for_the_same_tensors():
    gpt2, neox = architecture_of("gpt2"), architecture_of("gpt_neox")
    assert gpt2.canonical("h.3.attn.c_attn.bias") == "transformer.h.3.attn.c_attn.bias"
    assert gpt2.canonical("wpe.weight") == "transformer.wpe.weight"
    assert gpt2.canonical("lm_head.weight") == "lm_head.weight"
    assert gpt2.canonical("h.3.attn.bias") is None
    assert neox.canonical("lm_head.weight") == "embed_out.weight"
    assert neox.canonical("layers.0.attention.dense.bias") == "gpt_neox.layers.0.attention.dense.bias"
    assert neox.canonical("layers.0.attention.bias") is None


def test_a_family_that_is_not_known_has_no_layers_and_leaves_names_alone():
    family = architecture_of("rwkv")
    assert not family.known and family.output is None
    assert family.locate("model.layers.0.x") is None
    assert family.canonical("model.layers.0.attn.bias") == "model.layers.0.attn.bias"


@pytest.mark.parametrize(
    ("kind", "config", "kinds"),
    [
        ("gemma2", {}, "sfsfsf"),
        ("gemma3_text", {}, "sssssf"),
        ("gemma3_text", {"sliding_window_pattern": 2}, "sfsfsf"),
        ("gemma3_text", {"sliding_window_pattern": 2, "layer_types": ["full_attention"] * 6}, "ffffff"),
        ("qwen2", {"max_window_layers": 2}, "------"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}, "ffssss"),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 0}, "ssssss"),
        ("qwen3", {"use_sliding_window": True}, "ffffff"),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": None}, "ffffff"),
        ("mistral", {}, "------"),
        ("llama", {"layer_types": ["sliding_attention"] * 6}, "ssssss"),
    ],
)
def test_the_kind_of_each_layer_follows_the_list_or_the_rule_of_older_configs(kind, config, kinds):
    types = architecture_of(kind).layer_types
    words = {"s": "sliding_attention", "f": "full_attention", "-": None}
    assert [types.of(config, layer) for layer in range(6)] == [words[letter] for letter in kinds]
