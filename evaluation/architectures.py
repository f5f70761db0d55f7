"""How each architecture is read: whether it takes tries under a mask, its masks, its body and its head.

The architectures named here compute their logits from the last hidden states by a plain product, capped at most, and
hand a ready 4D mask, or one per attention type, to every layer. All others are read as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

#: Architectures that take one mask for all their layers.
ONE_MASK = frozenset({"gemma", "gpt2", "gpt_neox", "llama", "mistral", "phi3"})
#: Architectures that take a mask for each attention type of their layers.
MASK_PER_TYPE = frozenset({"gemma2", "gemma3_text", "qwen2", "qwen3"})

#: Of the former, those whose layers all look through the configuration's window.
_WINDOWED = frozenset({"mistral", "phi3"})
_ATTENTION_TYPES = frozenset({"full_attention", "sliding_attention"})
#: Rotary embeddings that do not depend on the longest text of a batch.
_FIXED_ROTARY = frozenset({"default", "linear", "llama3", "proportional", "yarn"})

Masks = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Refusal:
    """Why a model reads plain rows instead of tries.

    Attributes:
        reason: in words, for the log.
        by_length: whether what a text gets depends on the longest text read beside it.
    """

    reason: str
    by_length: bool = False


def known(model: PreTrainedModel) -> bool:
    """Whether logits may be had from `hidden_states` and `logits`."""
    return model.config.model_type in ONE_MASK | MASK_PER_TYPE


def refusal(model: PreTrainedModel, longest: int) -> Refusal | None:
    """Why `model` may not read packed tries of texts of at most `longest` tokens; None where it may."""
    config = model.config
    if rotary := _moving_rotary(config.get_text_config(), longest):
        return Refusal(f"its {rotary!r} rotary embeddings depend on the longest of the texts", by_length=True)
    if not known(model):
        return Refusal(f"the architecture {config.model_type!r} is not known to take tree masks")
    if config._attn_implementation not in ("sdpa", "eager"):
        return Refusal(f"{config._attn_implementation!r} attention takes no tree masks")
    if getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        return Refusal("its attention looks ahead")
    unknown = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_TYPES
    if config.model_type in MASK_PER_TYPE and unknown:
        return Refusal(f"its layers have attention of the types {sorted(unknown)!r}")
    return None


def caches_layers_apart(model: PreTrainedModel) -> bool:
    """Whether every layer keeps keys and values of its own: one layer object used twice would mix them."""
    body = model.base_model
    layers: Any = body.h if hasattr(body, "h") else body.layers
    numbers = [
        {part.layer_idx for part in layer.modules() if part is not layer and hasattr(part, "layer_idx")}
        for layer in layers
    ]
    return all(len(found) == 1 for found in numbers) and set().union(*numbers) == set(range(len(numbers)))


@torch.no_grad()
def forget_lengths(model: PreTrainedModel) -> None:
    """Make rotary embeddings that grow with the longest text read so far what they are for a short one.

    Texts read after that from the shortest to the longest get what each would get alone from a fresh model.
    """
    model(torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)


@torch.no_grad()
def hidden_states(
    model: PreTrainedModel,
    tokens: Tensor,
    masks: Masks | None = None,
    places: Tensor | None = None,
    cache: DynamicCache | None = None,
) -> Tensor:
    """(rows, length, width) the last hidden states of `tokens` (rows, length).

    Args:
        model: one that is `known`.
        tokens: (rows, length).
        masks: as from `tree_masks`; None reads each row as one text.
        places: (rows, length) each token's place in its text; None counts from the end of the cache.
        cache: keys and values of what stands before, to which those of `tokens` are added.
    """
    found: Tensor = model.base_model(
        tokens, attention_mask=masks, position_ids=places, past_key_values=cache, use_cache=cache is not None
    ).last_hidden_state
    return found


@torch.no_grad()
def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(r, vocabulary) float32 logits of hidden states (r, width), capped as the architecture does it."""
    return capped(model, model.get_output_embeddings()(hidden).float())


def capped(model: PreTrainedModel, logits: Tensor) -> Tensor:
    """Logits as the architecture bounds them, where it does."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def tree_masks(model: PreTrainedModel, end: Tensor, depth: Tensor, longest: int, trunk: int = 0) -> Masks:
    """What each node sees: itself, its ancestors, and a trunk that stands before all of them.

    Args:
        model: one without a `refusal`.
        end: (rows, length) one past the last node of each node's subtree, so that node i sees node j exactly when
            j <= i < end[j].
        depth: (rows, length) place of each node in its text, the trunk included.
        longest: length of the longest text at least; a window that is no shorter hides nothing.
        trunk: tokens of the trunk.

    Returns:
        (rows, 1, length, trunk + length) as the model's attention takes it, or one such per attention type.
    """
    place = torch.arange(end.shape[1], device=end.device)
    sees = (place[None, None, :] <= place[None, :, None]) & (place[None, :, None] < end[:, None, :])
    sees = torch.nn.functional.pad(sees, (trunk, 0), value=True)
    kinds = _attention_types(model.config)
    masks = {"full_attention": _as_taken(sees, model)} if "full_attention" in kinds else {}
    if "sliding_attention" in kinds:
        masks["sliding_attention"] = _through_window(model, sees, depth, longest, masks.get("full_attention"))
    return masks if model.config.model_type in MASK_PER_TYPE else masks.popitem()[1]


def _attention_types(config: Any) -> set[str]:
    if config.model_type in MASK_PER_TYPE:
        return set(config.layer_types)
    windowed = config.model_type in _WINDOWED and config.sliding_window is not None
    return {"sliding_attention" if windowed else "full_attention"}


def _through_window(
    model: PreTrainedModel, sees: Tensor, depth: Tensor, longest: int, unlimited: Tensor | None
) -> Tensor:
    window = model.config.sliding_window
    if window >= longest:
        return _as_taken(sees, model) if unlimited is None else unlimited
    trunk = torch.arange(sees.shape[2] - depth.shape[1], device=depth.device).expand(len(depth), -1)
    distance = depth[:, :, None] - torch.cat([trunk, depth], 1)[:, None, :]
    return _as_taken(sees & (distance < window), model)


def _as_taken(sees: Tensor, model: PreTrainedModel) -> Tensor:
    if model.config._attn_implementation == "sdpa":
        return sees.unsqueeze(1)
    added = torch.zeros(sees.shape, dtype=model.dtype, device=sees.device)
    return added.masked_fill_(~sees, torch.finfo(model.dtype).min).unsqueeze(1)


def _moving_rotary(config: Any, longest: int) -> str | None:
    """The type of rotary embedding that may change at texts of `longest` tokens, if there is one."""
    found = getattr(config, "rope_parameters", None) or {}
    # One set of parameters for the model, or one for each attention type.
    for part in [value for value in found.values() if isinstance(value, dict)] or [found]:
        kind = part.get("rope_type") or "default"
        trained = part.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None) or 0
        if kind not in _FIXED_ROTARY and longest >= trained:
            return str(kind)
    return None
