import pytest

from core.architectures import architecture_of
from core.config_fields import MAX_LAYERS, check_config
from core.errors import CheckpointError

GOOD = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": None,
    "vocab_size": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    "sliding_window": None,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "eos_token_id": [1, 2],
    "pad_token_id": -1,
    "layer_types": ["full_attention", "sliding_attention"],
    "unknown": {"anything": [None]},
}


def check(**changes):
    check_config(GOOD | changes, architecture_of("llama"))


def test_a_config_of_the_field_passes():
    check()
    check_config({"num_hidden_layers": MAX_LAYERS}, architecture_of("llama"))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("num_hidden_layers", [None, 0, -1, "2", 2.0, True, MAX_LAYERS + 1, 10**30, [2], {}]),
        ("num_attention_heads", [0, "4", 4.0, []]),
        ("num_key_value_heads", [0, 3, "2"]),
        ("vocab_size", [0, -5, "64", 2**31]),
        ("hidden_size", [0, "32", 1.5]),
        ("rope_theta", [0, -1.0, "1e4", True, 10**400, [1]]),
        ("rms_norm_eps", [0, "1e-6", {}]),
        ("rope_scaling", ["linear", 2.0, [], True]),
        ("rope_parameters", ["default", 1]),
        ("sliding_window", [-1, "4096"]),
        ("tie_word_embeddings", [1, "false"]),
        ("attention_dropout", [-0.1, "0", True]),
        ("hidden_act", [1, ["silu"]]),
        ("eos_token_id", ["</s>", [1, "2"], 2.5, {}]),
        ("layer_types", ["full_attention", ["full_attention"], [1, 2], {}]),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(field, values):
    for value in values:
        with pytest.raises(CheckpointError, match="must be") as found:
            check(**{field: value})
        assert found.value.code == "bad_checkpoint"
        assert found.value.where == field and len(found.value.message) < 300, value


def test_a_field_inside_the_rope_scaling_is_named_with_its_place():
    for scaling in ({"type": 1}, {"factor": "2"}, {"rope_theta": 0}):
        with pytest.raises(CheckpointError) as found:
            check(rope_scaling=scaling)
        assert found.value.where == f"rope_scaling.{next(iter(scaling))}"


def test_heads_of_their_own_width_need_not_divide_the_stacks():
    check(hidden_size=30, head_dim=8)
    with pytest.raises(CheckpointError, match="divisor of hidden_size 30"):
        check(hidden_size=30)
