import pytest

from core.architectures import architecture_of
from core.meaning import in_both_forms, meaning, rope_theta


def same(kind, one, other):
    family = architecture_of(kind)
    return meaning(one, family) == meaning(other, family) and rope_theta(one, family) == rope_theta(other, family)


GEMMA3_OLD = {
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
GEMMA3_NEW = {
    "rope_parameters": {
        "full_attention": {"rope_theta": 1000000.0, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    }
}
NEOX_OLD = {"rotary_emb_base": 10000, "rotary_pct": 0.5}
NEOX_NEW = {"rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.5, "rope_type": "default"}}
LONG = {"short_factor": [1.0], "long_factor": [2.0]}
PHI3_OLD = {"rope_theta": 10000.0, "rope_scaling": {"type": "su", **LONG}, "original_max_position_embeddings": 4096}
PHI3_NEW = {
    "original_max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_theta": 10000.0,
        "rope_type": "longrope",
        "partial_rotary_factor": 1.0,
        **LONG,
        "original_max_position_embeddings": 4096,
    },
}


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [("gemma3_text", GEMMA3_OLD, GEMMA3_NEW), ("gpt_neox", NEOX_OLD, NEOX_NEW), ("phi3", PHI3_OLD, PHI3_NEW)],
)
def test_rotary_embeddings_of_transformers_4_and_5_mean_the_same(kind, old, new):
    assert same(kind, old, new)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("gemma3_text", GEMMA3_OLD, GEMMA3_OLD | {"rope_local_base_freq": 20000.0}),
        ("gemma3_text", GEMMA3_OLD, GEMMA3_OLD | {"rope_scaling": None}),
        ("gpt_neox", NEOX_OLD, {"rotary_emb_base": 10000}),
        ("gpt_neox", {}, {"use_parallel_residual": False}),
        ("gpt_neox", {}, {"hidden_act": "gelu_new"}),
        ("phi3", PHI3_OLD, PHI3_OLD | {"original_max_position_embeddings": 2048}),
        ("gemma2", {}, {"attn_logit_softcapping": None}),
        ("gemma2", {}, {"query_pre_attn_scalar": 144}),
        ("gemma2", {}, {"hidden_activation": "gelu"}),
        ("gemma2", {}, {"tie_word_embeddings": False}),
        ("gpt2", {}, {"layer_norm_epsilon": 1e-6}),
        ("gpt2", {}, {"activation_function": "relu"}),
        ("qwen3", {}, {"head_dim": 64}),
        ("qwen2", {}, {"use_sliding_window": True}),
        ("rwkv", {"anything": 1}, {"anything": 2}),
    ],
)
def test_what_changes_the_function_is_told_apart(kind, one, other):
    assert not same(kind, one, other)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("gemma2", {"attn_logit_softcapping": 50.0, "tie_word_embeddings": True, "use_bidirectional_attention": None}),
        ("gpt2", {"tie_word_embeddings": True, "hidden_act": "not read"}),
        ("gpt_neox", {"rotary_pct": 0.25, "use_parallel_residual": True}),
        ("qwen3", {"head_dim": 128, "use_sliding_window": None}),
        ("rwkv", {"_name_or_path": "x", "transformers_version": "4.0", "eos_token_id": 3, "torch_dtype": "float16"}),
    ],
)
def test_a_default_that_is_said_means_what_an_absent_one_does(kind, said):
    assert meaning({}, architecture_of(kind)) == meaning(said, architecture_of(kind))


@pytest.mark.parametrize(
    ("kind", "new", "added"),
    [
        ("gemma3_text", GEMMA3_NEW, GEMMA3_OLD),
        ("gpt_neox", NEOX_NEW, NEOX_OLD),
        (
            *("phi3", PHI3_NEW),
            {"rope_theta": 10000.0, "partial_rotary_factor": 1.0, "rope_scaling": {"type": "longrope", **LONG}},
        ),
        ("gpt2", {"n_embd": 8}, {}),
    ],
)
def test_an_export_says_its_rotary_embedding_as_transformers_4_reads_it_too(kind, new, added):
    assert in_both_forms(dict(new), architecture_of(kind)) == new | added


def test_a_base_that_no_float_holds_is_none():
    assert rope_theta({"rope_theta": 10**400}, architecture_of("rwkv")) is None
    assert rope_theta({"rope_theta": 500}, architecture_of("rwkv")) == 500.0
    assert rope_theta({"rope_theta": 500}, architecture_of("gpt2")) is None
