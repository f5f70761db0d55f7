from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.perplexity import TOKENS, perplexity, texts

torch.set_num_threads(1)


def tree(tokens, end):
    class Tree(SimpleNamespace):
        def __len__(self):
            return len(self.tokens)

    return SimpleNamespace(tree=Tree(tokens=np.array(tokens), end=np.array(end)))


def model(vocabulary=16):
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def test_a_text_is_a_prompt_with_its_first_answer():
    # 1 2 3 | 4 5  and  1 2 3 | 6: a trie of two answers.
    branching = tree([1, 2, 3, 4, 5, 6], [6, 6, 6, 5, 5, 6])
    lone, long = tree([7], [1]), tree(list(range(600)), [600] * 600)
    found = texts(SimpleNamespace(documents=[branching, lone, long]), (0, 1, 2))
    assert [text.tolist() for text in found] == [[1, 2, 3, 4, 5], list(range(TOKENS))]


def test_a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large():
    silent = model()
    torch.nn.init.zeros_(silent.lm_head.weight)
    read = [np.array([1, 2, 3]), np.array([4, 5])]
    assert perplexity(silent, read, torch.device("cpu")) == pytest.approx(16.0, rel=1e-5)


def test_it_is_exp_of_the_mean_over_all_predicted_tokens_of_all_texts():
    speaks = model()
    read = [np.array([1, 2, 3, 9]), np.array([4, 5])]
    losses = []
    for text in read:
        ids = torch.tensor(text)[None]
        likely = speaks(input_ids=ids).logits[0].log_softmax(-1)
        losses += [-float(likely[place, text[place + 1]]) for place in range(len(text) - 1)]
    wanted = float(np.exp(np.mean(losses)))
    assert perplexity(speaks, read, torch.device("cpu")) == pytest.approx(wanted, rel=1e-5)


def test_a_model_of_nothing_but_nan_has_no_perplexity():
    broken = model()
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    assert np.isnan(perplexity(broken, [np.array([1, 2])], torch.device("cpu")))
