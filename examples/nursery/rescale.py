"""A change of scale that leaves the model's function alone, so that its weights have the spread of a real model's.

A freshly trained small model has all its norm weights near one; methods that choose by magnitude (trimming, sign
election) then see unnaturally even channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import LlamaForCausalLM


@torch.no_grad()
def rescale_preserving(model: LlamaForCausalLM, generator: torch.Generator, spread: float = 0.5) -> None:
    """Move a factor q = exp(spread · N(0, 1)) per channel into every RMSNorm weight and out of its readers' columns.

    In place. In exact arithmetic the logits stay the same; in float32 they move by rounding only. Needs an output
    head that is not tied to the embedding (the head reads the last norm).
    """
    for gamma, readers in _norms_and_readers(model):
        factor = torch.exp(spread * torch.randn(gamma.shape, generator=generator))
        gamma.mul_(factor)
        for weight in readers:
            weight.div_(factor)  # (out, hidden) / (hidden,): per input column


def _norms_and_readers(model: LlamaForCausalLM) -> Iterator[tuple[Tensor, list[Tensor]]]:
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        readers = (attention.q_proj, attention.k_proj, attention.v_proj)
        yield layer.input_layernorm.weight, [reader.weight for reader in readers]
        yield layer.post_attention_layernorm.weight, [mlp.gate_proj.weight, mlp.up_proj.weight]
    yield model.model.norm.weight, [model.lm_head.weight]
