"""How many tokens one forward pass may read: measured on a CPU, counted from the free memory on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from evaluation.architectures import known

#: What serves a CPU best: its caches gain nothing from more.
CPU_TOKENS = 1024
#: Nothing is gained from more on a GPU: 16,384 rows keep any of today's busy.
CUDA_TOKENS = 16384
#: Logits held at once (elements): bounds memory with large vocabularies.
LOGITS = 1 << 26
#: Part of the free memory that is counted on; the rest is for what the allocator splits off.
_USED = 0.7


def affordable_tokens(model: PreTrainedModel, device: torch.device, longest: int) -> int:
    """Tokens of one forward pass that the device has room for, now that the model is on it.

    Args:
        model: a causal language model.
        device: where it is.
        longest: nodes of the longest row, which a mask is squared in.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    # What the allocator keeps for later passes is free to them.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # Logits in the model's type, in float32 and once more for their exponentials.
    room = _USED * free - LOGITS * (model.dtype.itemsize + 8)
    return max(1, min(CUDA_TOKENS, int(room / _bytes_per_token(model, longest))))


def _bytes_per_token(model: PreTrainedModel, longest: int) -> int:
    """Memory of one token at the widest point of a layer, without gradients; nothing is kept from layer to layer."""
    config = model.config.get_text_config()
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    heads = config.num_attention_heads
    width = (getattr(config, "head_dim", None) or hidden // heads) * heads
    # Residual, its norm and the sum, and either attention (queries, keys and values, rotated, and what comes out) or
    # the MLP (gate, its activation, up and product); scores are squared in eager attention only.
    elements = 4 * hidden + max(8 * width, 4 * inner) + longest * _scores(config, heads)
    if not known(model):
        elements += config.vocab_size
    return int(elements * model.dtype.itemsize)


def _scores(config: Any, heads: int) -> int:
    # A mask and its form as a bias; eager attention adds scores, their softmax in float32 and their sum with the mask.
    return 2 if config._attn_implementation != "eager" else 2 + 4 * heads
