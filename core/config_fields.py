"""Whether the fields of a `config.json` are of the kind that everything after the inspection takes them for."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import CheckpointError

#: Most layers of a checkpoint.
MAX_LAYERS = 4096
#: Largest whole number in a config: beyond it no tensor exists.
MAX_WHOLE = 2**31 - 1


def check_config(config: Mapping[str, Any], layers_key: str) -> None:
    """Check the fields that merging, scoring and export read; unknown ones are nobody's business.

    Args:
        config: the parsed `config.json`.
        layers_key: the field that counts layers.

    Raises:
        CheckpointError: names the field, its value and the rule.
    """
    _check(config, layers_key, f"a whole number from 1 to {MAX_LAYERS}", lambda v: _whole(v, 1, MAX_LAYERS), True)
    for field in _SIZES:
        _check(config, field, "a whole number, at least 1", lambda v: _whole(v, 1))
    for field in _COUNTS:
        _check(config, field, "a whole number, at least 0", lambda v: _whole(v, 0))
    for field in _FACTORS:
        _check(config, field, "a finite number above 0", _above_zero)
    for field in _SHARES:
        _check(config, field, "a finite number, at least 0", lambda v: v == 0 or _above_zero(v))
    for field in _SWITCHES:
        _check(config, field, "true or false", lambda v: isinstance(v, bool))
    for field in _WORDS:
        _check(config, field, "text", lambda v: isinstance(v, str))
    for field in _TOKENS:
        _check(config, field, "a token id or a list of them", _token_ids)
    _check_rope(config)
    kinds = config.get("layer_types")
    if kinds is not None and not (_texts(kinds) and len(kinds) == config[layers_key]):
        raise _wrong("layer_types", f"a list of {config[layers_key]} names, one for every layer", kinds)
    _check_heads(config)


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_COUNTS = ("sliding_window", "max_window_layers", "pretraining_tp")
_FACTORS = ("rope_theta", "rms_norm_eps", "partial_rotary_factor")
_SHARES = ("attention_dropout", "initializer_range")
_SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window", "use_cache")
_WORDS = ("hidden_act", "dtype", "torch_dtype")
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ROPE_FACTORS = ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _check_rope(config: Mapping[str, Any]) -> None:
    for field in ("rope_scaling", "rope_parameters"):
        rope = config.get(field)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise _wrong(field, "an object", rope)
        for key in ("type", "rope_type"):
            _check(rope, key, "text", lambda v: isinstance(v, str), inside=field)
        for key in _ROPE_FACTORS:
            _check(rope, key, "a finite number above 0", _above_zero, inside=field)


def _check_heads(config: Mapping[str, Any]) -> None:
    """The heads divide what they share, or no attention can be built."""
    width, heads, groups = (config.get(key) for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    if heads and groups and heads % groups:
        raise _wrong("num_key_value_heads", f"a divisor of num_attention_heads {heads!r}", groups)
    if heads and width and not config.get("head_dim") and width % heads:
        raise _wrong("num_attention_heads", f"a divisor of hidden_size {width!r}", heads)


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
