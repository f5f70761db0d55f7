import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from core.errors import CancelledError, OutOfMemoryError
from evaluation import likelihood
from evaluation.likelihood import LikelihoodReader, takes_forests
from evaluation.scorer import never
from evaluation.trees import TokenRequest, grow

CPU = torch.device("cpu")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "initializer_range": 0.3,
}


def request(read, continuation):
    return TokenRequest(np.array(read, np.int32), np.array(continuation, np.int32))


def documents(seed, count=9, vocabulary=64):
    """Documents of 1 to 4 requests that mostly share a beginning; lengths from 1 to 40 tokens."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        trunk = draw.integers(0, vocabulary, draw.integers(0, 30)).tolist()
        group = []
        for _ in range(draw.integers(1, 5)):
            end = draw.integers(0, vocabulary, draw.integers(1, 9)).tolist()
            text = [*trunk, 1, *end]
            group.append(request(text[:-1], end))
        found.append([*group, group[0]])
    return found


@torch.no_grad()
def one_by_one(model, group):
    """The oracle: one ordinary forward pass per request, full log-softmax in float32."""
    found = []
    for r in group:
        logits = model(torch.tensor([r.read.tolist()]), use_cache=False).logits[0, -len(r.continuation) :].float()
        target = torch.tensor(r.continuation.tolist())
        scores = torch.log_softmax(logits, -1).gather(1, target[:, None]).sum().item()
        found.append((scores, bool((logits.argmax(-1) == target).all())))
    return found


def agree(model, reader, groups, tolerance=1e-4):
    answers = reader.read(model, [grow(group) for group in groups], cancelled=never)
    for answer, group in zip(answers, groups, strict=True):
        expected = one_by_one(model, group)
        assert answer.sums == pytest.approx([total for total, _ in expected], abs=tolerance)
        assert answer.greedy.tolist() == [greedy for _, greedy in expected]
    return answers


@pytest.fixture(scope="module")
def small(make_model):
    return make_model(vocab_size=64)


@pytest.mark.parametrize("batch_tokens", [1, 50, 400, 100_000])
@pytest.mark.parametrize("row_nodes", [0, 30, 500])
def test_packed_tries_equal_one_pass_per_request_whatever_the_packing(small, batch_tokens, row_nodes):
    agree(small, LikelihoodReader(CPU, batch_tokens, row_nodes), documents(0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 600), st.integers(0, 200))
def test_any_requests_in_any_packing_equal_one_pass_per_request(small, seed, batch_tokens, row_nodes):
    agree(small, LikelihoodReader(CPU, batch_tokens, row_nodes), documents(seed, 4))


@pytest.mark.parametrize("rows_at_once", [1, 7, 30])
def test_logits_taken_a_few_rows_at_a_time_give_the_same(rows_at_once, small, monkeypatch):
    monkeypatch.setattr(likelihood, "_LOGITS", rows_at_once * 64)
    agree(small, LikelihoodReader(CPU, 400, 100), documents(11))


def test_on_a_gpu_fuller_rows_are_packed_than_on_a_cpu():
    cuda, cpu = LikelihoodReader(torch.device("cuda")), LikelihoodReader(CPU)
    assert (cuda.batch_tokens, cuda.row_nodes, cpu.batch_tokens, cpu.row_nodes) == (16384, 512, 1024, 64)


def test_equal_requests_get_equal_bits(small):
    for answer in LikelihoodReader(CPU).read(small, [grow(g) for g in documents(1)], cancelled=never):
        assert answer.sums[0] == answer.sums[-1]


def test_eager_attention_takes_the_same_packing(make_model):
    agree(make_model(vocab_size=64, attn_implementation="eager"), LikelihoodReader(CPU, 300, 100), documents(2))


ARCHITECTURES = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8)),
    "window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=6)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0)
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_are_read_right_in_forests_or_plain_rows(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ARCHITECTURES[name]().eval()
    assert takes_forests(model, 40) == (name in ("mistral", "qwen2", "qwen3"))
    agree(model, LikelihoodReader(CPU, 200), documents(3))


def test_rotary_embeddings_that_look_at_the_whole_batch_are_read_in_plain_rows(make_model):
    assert not takes_forests(make_model(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), 10)


def test_a_layer_repeated_with_its_own_index_is_read_as_a_deep_copy_is(small):
    def restacked(copier):
        model = copy.deepcopy(small)
        first, second = model.model.layers
        again = copier(first)
        again.self_attn = copy.copy(again.self_attn)
        again.self_attn.layer_idx = 2
        model.model.layers = torch.nn.ModuleList([first, second, again])
        model.config.num_hidden_layers = 3
        return model

    shared, apart = restacked(copy.copy), restacked(copy.deepcopy)
    assert shared.model.layers[2].mlp.up_proj.weight is shared.model.layers[0].mlp.up_proj.weight
    reader = LikelihoodReader(CPU)
    trees = [grow(group) for group in documents(4)]
    for mine, other in zip(
        reader.read(shared, trees, cancelled=never), reader.read(apart, trees, cancelled=never), strict=True
    ):
        assert mine.sums.tolist() == other.sums.tolist()
    agree(shared, reader, documents(4))


def test_a_layer_object_twice_in_the_list_is_read_right_because_nothing_is_cached(small):
    model = copy.deepcopy(small)
    model.model.layers = torch.nn.ModuleList([model.model.layers[0], *model.model.layers])
    model.config.num_hidden_layers = 3
    agree(model, LikelihoodReader(CPU), documents(5))


def test_half_precision_sums_stay_close_to_float32_and_have_no_rounding_of_the_sum(small):
    groups = documents(6)
    half = copy.deepcopy(small).to(torch.bfloat16)
    answers = LikelihoodReader(CPU).read(half, [grow(group) for group in groups], cancelled=never)
    exact = [total for group in groups for total, _ in one_by_one(small, group)]
    found = np.concatenate([answer.sums for answer in answers])
    assert np.abs(found - exact).mean() < 0.5
    assert np.mean(found.astype(np.float32) == torch.tensor(found).bfloat16().float().numpy()) < 0.1


def test_a_model_in_training_mode_is_read_without_dropout(small):
    model = copy.deepcopy(small)
    model.config.attention_dropout = 0.9
    agree(model.train(), LikelihoodReader(CPU), documents(7))


class Device:
    """Pretends that passes over more than `tokens` tokens do not fit."""

    def __init__(self, monkeypatch, model, tokens):
        self.sizes = []
        original = model.model.forward

        def forward(input_ids, **rest):
            self.sizes.append(input_ids.numel())
            if input_ids.numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(input_ids, **rest)

        monkeypatch.setattr(model.model, "forward", forward)


def test_when_memory_runs_out_smaller_batches_are_tried_and_kept(monkeypatch, small):
    model = copy.deepcopy(small)
    groups = documents(8)
    expected = LikelihoodReader(CPU, 4000).read(model, [grow(group) for group in groups], cancelled=never)
    device = Device(monkeypatch, model, 150)
    reader = LikelihoodReader(CPU, 4000)
    answers = reader.read(model, [grow(group) for group in groups], cancelled=never)
    assert max(device.sizes) > 150
    assert reader.batch_tokens < 400
    assert device.sizes[-1] <= 150
    for mine, other in zip(answers, expected, strict=True):
        assert mine.sums == pytest.approx(other.sums, abs=1e-4)


def test_when_one_text_does_not_fit_the_trial_fails_by_name(monkeypatch, small):
    model = copy.deepcopy(small)
    Device(monkeypatch, model, 3)
    with pytest.raises(OutOfMemoryError, match="does not fit cpu"):
        LikelihoodReader(CPU).read(model, [grow(group) for group in documents(9)], cancelled=never)


def test_cancelling_stops_between_two_batches(small):
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(CancelledError):
        LikelihoodReader(CPU, 40, 0).read(small, [grow(group) for group in documents(10)], cancelled=cancelled)
    assert len(asked) == 3


def test_nothing_to_read_gives_nothing(small):
    assert LikelihoodReader(CPU).read(small, [], cancelled=never) == []
