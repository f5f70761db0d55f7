"""How a `tokenizer.json` cuts a text into what its vocabulary is looked up for, in one form for all its spellings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of steps that change no token: where an offset points, and a copy of `replacement`.
_SILENT = frozenset({"trim_offsets", "str_rep"})
#: What an absent key of a step means.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ByteLevel": {"add_prefix_space": True, "use_regex": True},
    "Metaspace": {"prepend_scheme": "always", "split": True},
}


def segmentation(parsed: Mapping[str, Any]) -> dict[str, Any]:
    """The rules that cut a text: normaliser, pre-tokeniser, and the model without vocabulary and merges.

    Not among them: what frames a text or is only marked (post-processor, special tokens, chat template), decoding, and
    the added tokens, which are part of the vocabulary.

    Args:
        parsed: the whole file.

    Returns:
        the rules by name; what is off and what is absent are one.
    """
    model = parsed.get("model")
    found = {k: v for k, v in model.items() if k not in ("vocab", "merges")} if isinstance(model, dict) else {}
    found |= {key: _step(parsed.get(key)) for key in ("normalizer", "pre_tokenizer")}
    return {key: value for key, value in found.items() if value not in (None, False, "")}


def _step(step: Any) -> Any:
    """A normaliser or pre-tokeniser, with those inside it."""
    if isinstance(step, list):
        return [_step(each) for each in step]
    if not isinstance(step, dict):
        return step
    said = {key: _step(value) for key, value in step.items() if key not in _SILENT and value is not None}
    kind = said.get("type")
    if kind == "Metaspace":
        said.pop("add_prefix_space", None)  # Of before there was `prepend_scheme`; a contradiction is refused.
    return {**_DEFAULTS.get(kind, {}), **said} if isinstance(kind, str) else said
