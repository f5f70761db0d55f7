import random

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evaluation.catalog import LOCAL_TASKS, load_task
from evaluation.lm import HuarizoLM

ALL = (*LOCAL_TASKS, "riddles")


def _instances(pairs):
    return [Instance("loglikelihood", {}, pair, 0) for pair in pairs]


@pytest.mark.parametrize("shots", [0, 2])
def test_a_run_of_the_harness_gives_what_its_own_model_gives(shots, stock, evaluate, folders, model, tokenizer, near):
    theirs = stock(model, ALL, shots)
    tasks = [load_task(name, folders, num_fewshot=shots) for name in ALL]
    ours = evaluate(HuarizoLM(model, tokenizer), tasks, num_fewshot=shots or None)
    assert ours.results == theirs.results
    for name in ALL:
        assert ours.arguments(name) == theirs.arguments(name)
        assert ours.greedy(name) == theirs.greedy(name)
        for mine, other in zip(ours.lls(name), theirs.lls(name), strict=True):
            assert all(map(near, mine, other))
        for mine, other in zip(ours.samples[name], theirs.samples[name], strict=True):
            keys = {"prompt_hash", "doc_hash", "target_hash", "acc", "acc_norm"} & other.keys()
            assert {k: mine[k] for k in keys} == {k: other[k] for k in keys}


@pytest.mark.parametrize(("max_length", "add_bos"), [(None, True), (24, False), (16, True)])
def test_truncation_and_special_tokens_follow_the_harness(
    max_length, add_bos, stock, evaluate, folders, model, tokenizer, near
):
    theirs = stock(model, ["arc_easy"], 1, max_length=max_length, add_bos=add_bos)
    lm = HuarizoLM(model, tokenizer, max_length=max_length, add_bos=add_bos)
    ours = evaluate(lm, [load_task("arc_easy", folders, num_fewshot=1)], num_fewshot=1)
    assert ours.results == theirs.results
    for mine, other in zip(ours.lls("arc_easy"), theirs.lls("arc_easy"), strict=True):
        assert all(map(near, mine, other))


def test_single_token_duplicate_and_nested_continuations_in_any_order(model, tokenizer, near):
    pairs = [
        ("Question: what", " a"), ("Question: what", " a"), ("Question: what", " a b"), ("Question: what", " a b c d"),
        ("Question: what is it ", "red"), ("", "red and proud"), ("Question:", " what"), ("x", "y"), ("é", " ñandú"),
    ]  # fmt: skip
    random.Random(3).shuffle(pairs)
    theirs = HFLM(model, tokenizer=tokenizer, batch_size=3).loglikelihood(_instances(pairs), disable_tqdm=True)
    ours = HuarizoLM(model, tokenizer, batch_tokens=16).loglikelihood(_instances(pairs))
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert all(near(mine, other) for (mine, _), (other, _) in zip(ours, theirs, strict=True))
    same = [answer for answer, pair in zip(ours, pairs, strict=True) if pair == ("Question: what", " a")]
    assert same[0] == same[1]


def test_greedy_is_true_exactly_for_the_most_probable_continuation(model, tokenizer):
    context = tokenizer("Question: what", return_tensors="pt").input_ids
    best = int(model(context).logits[0, -1].argmax())
    lm = HuarizoLM(model, tokenizer)
    answers = lm._loglikelihood_tokens([(("", ""), context[0].tolist(), [token]) for token in (best, (best + 1) % 320)])
    expected = torch.log_softmax(model(context).logits[0, -1], -1)[best].item()
    assert [greedy for _, greedy in answers] == [True, False]
    assert answers[0][0] == pytest.approx(expected, abs=1e-5)


def test_it_names_the_tokens_the_harness_asks_for(model, tokenizer):
    lm = HuarizoLM(model, tokenizer)
    assert (lm.prefix_token_id, lm.eot_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert lm.tok_encode("a red one") == tokenizer.encode("a red one")
