"""What a `config.json` means: the fields that decide what equal shapes compute, in one form for all versions.

transformers 4 and 5 write rotary embeddings and head sizes differently, and both leave out what is a default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from core.architectures import Architecture, Rope

#: Config keys that say nothing of what the model computes.
COSMETIC = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"})
#: Further keys that fine-tunes of one base may differ in, where nothing else is known of the family.
HARMLESS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "auto_map"})
#: Keys that null turns off, where an absent one has its default.
SWITCHED_OFF = frozenset({"attn_logit_softcapping", "final_logit_softcapping", "sliding_window"})
FULL, SLIDING = "full_attention", "sliding_attention"


def meaning(config: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """What two configs must have in common for their weights to be combined.

    A family that is not known has all of its config compared, but for names and token ids.
    """
    if not architecture.known:
        return {key: value for key, value in config.items() if key not in COSMETIC | HARMLESS}
    found = {key: _given(config, key, default) for key, default in architecture.meaning.items()}
    heads = found.get("num_attention_heads")
    if heads:
        if "num_key_value_heads" in found:
            found["num_key_value_heads"] = found["num_key_value_heads"] or heads
        if "head_dim" in found:
            found["head_dim"] = found["head_dim"] or int(config.get("hidden_size") or heads) // int(heads)
    if "sliding_window" in found:
        found["sliding_window"] = _window(found, config, architecture)
    found["tie_word_embeddings"] = architecture.is_tied(config)
    if architecture.rope is not None:
        # What the family states beside its rotary embedding is compared there; transformers 5 copies it in.
        rope = _rope(config, architecture.rope)
        found["RoPE scaling"] = {key: value for key, value in rope.items() if key not in found}
    return found


def rope_theta(config: Mapping[str, Any], architecture: Architecture) -> float | None:
    """The base that the config states for its rotary embedding (that of full attention); None where it states none."""
    rope = architecture.rope
    if rope is None and architecture.known:
        return None
    nested = _scaling(config, "rope_parameters")
    if rope is not None and rope.by_layer_type:
        nested = _scaling(nested, FULL)
    keys = dict.fromkeys(("rope_theta", rope.theta_key if rope is not None else "rope_theta"))
    stated = [config.get(key) for key in keys] + [nested.get("rope_theta")]
    value = next((each for each in stated if each is not None), None)
    # Only the fields of known families were checked to be numbers that a float can hold.
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None


def in_both_forms(config: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The config with its rotary embedding said as transformers 4 reads it, beside what transformers 5 reads."""
    nested, rope = config.get("rope_parameters"), architecture.rope
    if not isinstance(nested, dict):
        return config
    theta_key, share_key = (rope.theta_key, rope.share_key) if rope is not None else ("rope_theta", "")
    if rope is not None and rope.by_layer_type:
        local = _scaling(nested, SLIDING).get("rope_theta")
        if local is not None and rope.local_theta_key:
            config.setdefault(rope.local_theta_key, local)
        nested = _scaling(nested, FULL)
    if "rope_theta" not in nested:
        return config
    config.setdefault(theta_key, nested["rope_theta"])
    if share_key and "partial_rotary_factor" in nested:
        config.setdefault(share_key, nested["partial_rotary_factor"])
    if nested.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", _old_scaling(nested, rope))
    return config


def _window(found: Mapping[str, Any], config: Mapping[str, Any], architecture: Architecture) -> Any:
    """How far a sliding layer looks back; None where no layer slides.

    A window of w hides position k from position q where k <= q - w: nothing, if no input is longer than w. Where the
    window holds for some layers only it stays what it is: those layers are told apart by their kind.
    """
    window = found["sliding_window"]
    if not found.get("use_sliding_window", True):
        return None
    types, longest = architecture.layer_types, config.get("max_position_embeddings")
    if window is None or longest is None or (types is not None and types.rule != "listed"):
        return window
    return None if window >= longest else window


def _old_scaling(nested: Mapping[str, Any], rope: Rope | None) -> dict[str, Any]:
    """`rope_scaling` of transformers 4, which for Phi-3 refuses every key but three."""
    if rope is not None and rope.scaling_keys:
        return {"type": nested["rope_type"], **{key: nested[key] for key in rope.scaling_keys if key in nested}}
    return {key: value for key, value in nested.items() if key != "rope_theta"}


def _rope(config: Mapping[str, Any], rope: Rope) -> dict[str, Any]:
    """Every number of the rotary embedding but the base of full attention, which is compared by its own name."""
    nested, old = _scaling(config, "rope_parameters"), _scaling(config, "rope_scaling")
    if not rope.by_layer_type:
        return _one_rope({**old, **nested}, _given(config, rope.share_key, rope.share))
    sliding = _scaling(nested, SLIDING)
    base = sliding.get("rope_theta", config.get(str(rope.local_theta_key)))
    return {
        FULL: _one_rope({**old, **_scaling(nested, FULL)}, rope.share),
        SLIDING: _one_rope(sliding, rope.share),
        "local base": rope.local_theta if base is None else float(base),
    }


def _one_rope(scaling: Mapping[str, Any], share: Any) -> dict[str, Any]:
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    # Phi-3 was first published with "su" (and, unused, "yarn"), which is "longrope" now.
    found = {key: value for key, value in scaling.items() if key not in ("type", "rope_theta")}
    return {"partial_rotary_factor": share, **found, "rope_type": "longrope" if kind == "su" else kind}


def _scaling(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _given(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    return default if value is None and not (key in config and key in SWITCHED_OFF) else value
