"""Whether the fields of a `config.json` are of the kind that everything after the inspection takes them for."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from core.architectures import Architecture
from core.errors import CheckpointError

#: Most layers of a checkpoint.
MAX_LAYERS = 4096
#: Largest whole number in a config: beyond it no tensor exists.
MAX_WHOLE = 2**31 - 1


def check_config(config: Mapping[str, Any], architecture: Architecture) -> None:
    """Check the fields that merging, scoring and export read; unknown ones are nobody's business.

    Args:
        config: the parsed `config.json`.
        architecture: its family. Of one that is not known only the size of the vocabulary is read.

    Raises:
        CheckpointError: names the field, its value and the rule.
    """
    if not architecture.known:
        _check(config, "vocab_size", "a whole number, at least 1", lambda v: _whole(v, 1))
        return
    layers_key = architecture.layers_key
    _check(config, layers_key, f"a whole number from 1 to {MAX_LAYERS}", lambda v: _whole(v, 1, MAX_LAYERS), True)
    for rule, holds, fields in _RULES:
        for field in fields:
            _check(config, field, rule, holds)
    _check_rope(config)
    kinds = config.get("layer_types")
    if kinds is not None and not (_texts(kinds) and len(kinds) == config[layers_key]):
        raise _wrong("layer_types", f"a list of {config[layers_key]} names, one for every layer", kinds)
    _check_heads(config, architecture)


_ROPE_FACTORS = ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _check_rope(config: Mapping[str, Any]) -> None:
    for field in ("rope_scaling", "rope_parameters"):
        rope = config.get(field)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise _wrong(field, "an object", rope)
        _check_one_rope(rope, field)
        for kind, inner in rope.items():
            if isinstance(inner, dict):
                _check_one_rope(inner, f"{field}.{kind[:40]}")


def _check_one_rope(rope: Mapping[str, Any], inside: str) -> None:
    for key in ("type", "rope_type"):
        _check(rope, key, "text", lambda v: isinstance(v, str), inside=inside)
    for key in _ROPE_FACTORS:
        _check(rope, key, "a finite number above 0", _above_zero, inside=inside)


def _check_heads(config: Mapping[str, Any], architecture: Architecture) -> None:
    """The heads divide what they share, or no attention can be built."""
    width_key, heads_key = architecture.width_key, architecture.heads_key
    width, heads, groups = (config.get(key) for key in (width_key, heads_key, "num_key_value_heads"))
    if heads and groups and heads % groups:
        raise _wrong("num_key_value_heads", f"a divisor of {heads_key} {heads!r}", groups)
    own_width = config.get("head_dim") or architecture.meaning.get("head_dim")
    if heads and width and not own_width and width % heads:
        raise _wrong(heads_key, f"a divisor of {width_key} {width!r}", heads)


def _check(
    config: Mapping[str, Any],
    field: str,
    rule: str,
    holds: Callable[[Any], bool],
    required: bool = False,
    *,
    inside: str | None = None,
) -> None:
    """Null stands for an absent field, as transformers has it."""
    value = config.get(field)
    if value is None and not required:
        return
    if not holds(value):
        raise _wrong(f"{inside}.{field}" if inside else field, rule, value)


def _whole(value: Any, low: int, high: int = MAX_WHOLE) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _above_zero(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return value > 0 and math.isfinite(value)
    except OverflowError:  # An integer that no float can hold.
        return False


def _token_ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return all(_whole(each, -1) for each in ids)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _wrong(field: str, rule: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{field!r} of config.json must be {rule}, but is {reprlib.repr(value)}: export it again",
        where=field,
    )


_RULES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        "a whole number, at least 1",
        lambda v: _whole(v, 1),
        (
            *("vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_attention_heads"),
            *("num_key_value_heads", "max_position_embeddings", "original_max_position_embeddings"),
            *("sliding_window_pattern", "n_embd", "n_head", "n_inner", "n_positions", "n_ctx"),
        ),
    ),
    ("a whole number, at least 0", lambda v: _whole(v, 0), ("sliding_window", "max_window_layers", "pretraining_tp")),
    (
        "a finite number above 0",
        lambda v: _above_zero(v),
        (
            *("rope_theta", "rope_local_base_freq", "rotary_emb_base", "partial_rotary_factor", "rotary_pct"),
            *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
            *("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
        ),
    ),
    (
        "a finite number, at least 0",
        lambda v: v == 0 or _above_zero(v),
        ("attention_dropout", "initializer_range"),
    ),
    (
        "true or false",
        lambda v: isinstance(v, bool),
        (
            *("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "use_cache"),
            *("use_parallel_residual", "use_bidirectional_attention"),
            *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
        ),
    ),
    (
        "text",
        lambda v: isinstance(v, str),
        ("hidden_act", "hidden_activation", "activation_function", "dtype", "torch_dtype"),
    ),
    ("a token id or a list of them", lambda v: _token_ids(v), ("bos_token_id", "eos_token_id", "pad_token_id")),
)
