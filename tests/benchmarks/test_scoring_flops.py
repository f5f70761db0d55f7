"""Arithmetic counted by hand, and by PyTorch's own counter."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.scoring_flops import Shape, least_flops, stock_flops
from evaluation.trees import TokenRequest

SHAPE = Shape(layers=2, hidden=4, inner=6, heads=2, key_heads=1, head_size=3, vocabulary=10)


def request(read, scored):
    return TokenRequest(np.array(read, np.int32), np.arange(scored, dtype=np.int32))


def test_a_shape_is_counted_as_worked_by_hand():
    # Queries and what comes out are 4 x 6, keys and values 4 x 3, the MLP three times 4 x 6: 144 weights in 2 layers.
    assert SHAPE.per_token == 2 * 2 * 144
    # A score and a share of a value: 3 multiplications and additions each, in 2 heads and 2 layers.
    assert SHAPE.per_pair == 2 * 2 * 3 * 2 * 2
    assert SHAPE.per_row == 2 * 4 * 10


def test_two_choices_are_read_twice_by_the_harness_and_share_their_beginning_in_the_trie():
    choices = [request([5, 6, 7], 1), request([5, 6, 8, 9], 2)]
    assert stock_flops(SHAPE, choices) == 7 * 576 + (1 + 2 + 3 + 1 + 2 + 3 + 4) * 48 + 7 * 80
    # 5 and 6 once, then 7, 8 and 9; the head on 7, 8 and 9.
    assert least_flops(SHAPE, choices) == 5 * 576 + (1 + 2 + 3 + 3 + 4) * 48 + 3 * 80


def test_continuations_of_one_token_are_read_once_by_the_harness_too():
    alike = [request([5, 6], 1), request([5, 6], 1), request([5, 6], 1)]
    assert stock_flops(SHAPE, alike) == 2 * 576 + 3 * 48 + 2 * 80
    assert least_flops(SHAPE, alike) == 2 * 576 + 3 * 48 + 80


def test_documents_share_their_beginnings_whatever_order_they_come_in():
    texts = [request([1, 2, 3], 1), request([4], 1), request([1, 2, 5], 1)]
    assert least_flops(SHAPE, texts) == 5 * 576 + (1 + 2 + 3 + 3 + 1) * 48 + 3 * 80


@pytest.mark.parametrize("key_heads", [1, 4])
def test_linear_layers_and_attention_are_what_torch_counts(key_heads):
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=key_heads, vocab_size=64, attn_implementation="eager",
    )  # fmt: skip
    length, model = 9, LlamaForCausalLM(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(length).unsqueeze(0), use_cache=False)
    shape = Shape.of(config)
    # The module multiplies every token with every other one, what is masked included; and, where that is a product of
    # matrices, its rotary angles once.
    angles = 2 * (config.head_dim // 2) * length
    masked = shape.per_pair * length * (length - 1) // 2
    rest = counter.get_total_flops() - shape.flops(np.arange(length), length) - masked
    assert rest in (0, angles)
