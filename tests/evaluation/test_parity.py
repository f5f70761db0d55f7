"""Whole runs of the harness with its own model and with ours: the same prompts, numbers, judgements and results.

What runs here covers every architecture and every trap once; the product of the cases is slow.
"""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from core.objective import TaskSpec
from evaluation.catalog import LOCAL_TASKS, load_task
from evaluation.likelihood import Packing
from evaluation.lm import HuarizoLM
from evaluation.prepare import prepare_with
from evaluation.scorer import Scorer

CPU = torch.device("cpu")
NONE = dict.fromkeys(LOCAL_TASKS, 0)
FEW = dict.fromkeys(LOCAL_TASKS, 2)
LEADERBOARD = {"arc_challenge": 25, "arc_easy": 25, "hellaswag": 10, "winogrande": 5}
#: Every document alone in its rows, packed in full rows, and all of them on stems over a cache.
PACKINGS = {"alone": Packing(0, 0, None), "full": Packing(400, 400, None), "stems": Packing(64, 64, 1)}
ARCHITECTURES = [
    "llama", "mistral", "mistral-window", "qwen2", "qwen2-window", "qwen3", "gemma", "gemma2", "gemma3", "gemma3-eager",
    "phi3", "phi3-window", "gpt_neox", "gpt2", "granite",
]  # fmt: skip
LONG = {"max_position_embeddings": 2048}


@pytest.fixture
def run(evaluate, many_shots):
    """`run(lm, shots)`: a run over fresh tasks with their shots."""

    def start(lm, shots, folders=many_shots):
        return evaluate(lm, [load_task(name, folders, num_fewshot=count) for name, count in shots.items()])

    return start


@pytest.fixture
def same(near):
    """Refuses two runs that differ in anything but the last digits of log-likelihoods."""

    def compare(ours, theirs):
        assert ours.results == theirs.results
        for name, samples in theirs.samples.items():
            assert ours.arguments(name) == theirs.arguments(name)
            assert ours.greedy(name) == theirs.greedy(name)
            for mine, other in zip(ours.lls(name), theirs.lls(name), strict=True):
                assert all(map(near, mine, other))
            kept = {"doc_id", "doc", "prompt_hash", "doc_hash", "target_hash", "acc", "acc_norm"}
            for mine, other in zip(ours.samples[name], samples, strict=True):
                assert {key: mine[key] for key in kept & mine.keys()} == {
                    key: other[key] for key in kept & other.keys()
                }

    return compare


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_the_harness_s_numbers(name, run, same, make_architecture, tokenizer):
    model = make_architecture(name)
    theirs = run(HFLM(model, tokenizer=tokenizer, batch_size=4), FEW)
    same(run(HuarizoLM(model, tokenizer, batch_tokens=512), FEW), theirs)
    same(run(HuarizoLM(model, tokenizer, packing=PACKINGS["stems"]), FEW), theirs)


@pytest.mark.parametrize(("name", "tasks"), [("llama", LOCAL_TASKS), ("gemma3", ["arc_challenge"])])
def test_a_leaderboard_s_shots_give_the_harness_s_numbers(name, tasks, run, same, make_architecture, tokenizer):
    model, shots = make_architecture(name, **LONG), {task: LEADERBOARD[task] for task in tasks}
    theirs = run(HFLM(model, tokenizer=tokenizer, batch_size=1), shots)
    same(run(HuarizoLM(model, tokenizer), shots), theirs)


@pytest.mark.parametrize("name", ["gpt2", "gemma", "gemma2"])
def test_heavy_truncation_and_special_tokens_give_the_harness_s_numbers(
    name, run, same, make_architecture, bos_tokenizer
):
    model = make_architecture(name)
    for max_length, add_bos in ((None, True), (40, False), (40, True)):
        options = {"max_length": max_length, "tokenizer": bos_tokenizer}
        theirs = run(HFLM(model, add_bos_token=add_bos, batch_size=4, **options), FEW)
        same(run(HuarizoLM(model, add_bos=add_bos, **options), FEW), theirs)


def test_after_a_swap_of_weights_the_numbers_are_the_new_ones(run, same, make_architecture, tokenizer):
    model, other = make_architecture("qwen2"), make_architecture("qwen2", seed=1)
    lm = HuarizoLM(model, tokenizer)
    first = run(lm, NONE)
    model.load_state_dict(other.state_dict())
    second = run(lm, NONE)
    same(second, run(HFLM(other, tokenizer=tokenizer, batch_size=4), NONE))
    assert second.lls("arc_easy") != first.lls("arc_easy")


def test_a_restacked_model_with_indices_of_its_own_gives_the_harness_s_numbers(run, same, make_architecture, tokenizer):
    model = copy.deepcopy(make_architecture("gemma3"))
    again = copy.copy(model.model.layers[0])
    # A copy of a module shares the table of its submodules with it.
    again._modules = {**again._modules, "self_attn": copy.copy(again.self_attn)}
    again.self_attn.layer_idx = 2
    model.model.layers.append(again)
    model.config.num_hidden_layers = 3
    model.config.layer_types = [*model.config.layer_types, model.config.layer_types[0]]
    theirs = run(HFLM(model, tokenizer=tokenizer, batch_size=4), FEW)
    for packing in PACKINGS.values():
        same(run(HuarizoLM(model, tokenizer, packing=packing), FEW), theirs)


CONTINUATIONS = (" a", " a", " a b", " a b c d", " red", "red and proud", "x")
CONTEXTS = ("Question: what", "Question: what is it ", "Question: what is it", "", "Q", "é ñandú \n\n")


def _instances(pairs):
    return [Instance("loglikelihood", {}, pair, 0) for pair in pairs]


def _pairs_agree(ours, theirs, near):
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert all(near(mine, other) for (mine, _), (other, _) in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "phi3-window"])
def test_requests_in_any_order_with_equal_nested_and_single_token_continuations_give_the_harness_s_numbers(
    name, make_architecture, tokenizer, near
):
    model = make_architecture(name)
    pairs = list(itertools.product(CONTEXTS, CONTINUATIONS))
    for seed, packing in enumerate(PACKINGS.values()):
        random.Random(seed).shuffle(pairs)
        theirs = HFLM(model, tokenizer=tokenizer, batch_size=3).loglikelihood(_instances(pairs), disable_tqdm=True)
        ours = HuarizoLM(model, tokenizer, packing=packing, batch_tokens=30).loglikelihood(_instances(pairs))
        _pairs_agree(ours, theirs, near)
        found = dict(zip(pairs, ours, strict=True))
        assert all(answer == found[pair] for pair, answer in zip(pairs, ours, strict=True))


@pytest.mark.parametrize(("name", "blocks", "batch_tokens"), [("gemma2", 3, 100), ("gpt2", 1, 1), ("phi3", 128, None)])
def test_any_blocks_and_budgets_give_the_outcomes_of_the_harness(
    name, blocks, batch_tokens, run, make_architecture, tokenizer, many_shots
):
    model = make_architecture(name)
    theirs = run(HFLM(model, tokenizer=tokenizer, batch_size=4), FEW)
    specs = [TaskSpec(task=task, num_fewshot=shots) for task, shots in FEW.items()]
    prepared = prepare_with(specs, tokenizer, many_shots, max_length=512, add_bos=False)
    scorer = Scorer(prepared, device=CPU, dtype=torch.float32, batch_tokens=batch_tokens)
    for spec in specs:
        numbers = random.Random(blocks).sample(range(4), 4)
        found = scorer.score(model, spec.task, numbers, block_items=blocks)
        expected = [theirs.samples[spec.task][number][spec.metric_name] for number in found.numbers]
        assert list(found.correct) == expected


def _errors(run, lm, truth):
    """|log-likelihood - truth| of every request of a run."""
    found = run(lm, FEW)
    return np.array([abs(a - b) for task in FEW for a, b in zip(_flat(found, task), _flat(truth, task), strict=True)])


def _flat(found, task):
    return [value for document in found.lls(task) for value in document]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_in_half_precision_log_likelihoods_are_closer_to_float32_than_the_harness_s(
    name, run, make_architecture, tokenizer
):
    exact = make_architecture(name, initializer_range=0.1)
    half = copy.deepcopy(exact).to(torch.bfloat16)
    truth = run(HFLM(exact, tokenizer=tokenizer, batch_size=4), FEW)
    theirs = _errors(run, HFLM(half, tokenizer=tokenizer, batch_size=4), truth)
    ours = _errors(run, HuarizoLM(half, tokenizer), truth)
    print(
        f"{name}: mean |delta| {ours.mean():.4f} against {theirs.mean():.4f} nats, worst {ours.max():.3f} {theirs.max():.3f}"
    )
    assert ours.mean() < 0.8 * theirs.mean()


SLOW = [
    pytest.param(name, shots, max_length, add_bos, id=f"{name}-{kind}-{max_length}-{add_bos}")
    for name, (kind, shots), (max_length, add_bos) in itertools.product(
        ARCHITECTURES,
        {"zero-shot": NONE, "leaderboard": LEADERBOARD}.items(),
        ((None, False), (None, True), (200, False), (40, True)),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shots", "max_length", "add_bos"), SLOW)
def test_the_product_of_architectures_shots_lengths_tokens_and_packings(
    name, shots, max_length, add_bos, run, same, make_architecture, bos_tokenizer
):
    model = make_architecture(name, **LONG)
    options = {"max_length": max_length, "tokenizer": bos_tokenizer}
    theirs = run(HFLM(model, add_bos_token=add_bos, batch_size=1, **options), shots)
    for packing, batch_tokens in zip((None, *PACKINGS.values()), (None, 1, 700, None), strict=True):
        lm = HuarizoLM(model, add_bos=add_bos, packing=packing, batch_tokens=batch_tokens, **options)
        same(run(lm, shots), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_product_of_architectures_swaps_orders_and_blocks(
    name, run, make_architecture, tokenizer, many_shots, near
):
    model = copy.deepcopy(make_architecture(name))
    specs = [TaskSpec(task=task, num_fewshot=shots) for task, shots in FEW.items()]
    prepared = prepare_with(specs, tokenizer, many_shots, max_length=512, add_bos=model.config.model_type == "gemma")
    scorer = Scorer(prepared, device=CPU, dtype=torch.float32)
    lm = HuarizoLM(model, tokenizer)
    pairs = list(itertools.product(CONTEXTS, CONTINUATIONS))
    for seed in (1, 2):
        model.load_state_dict(make_architecture(name, seed=seed).state_dict())
        stock = HFLM(model, tokenizer=tokenizer, batch_size=4)
        theirs = run(stock, FEW)
        for spec, blocks in itertools.product(specs, (1, 3, 128)):
            found = scorer.score(model, spec.task, random.Random(seed).sample(range(4), 4), block_items=blocks)
            expected = [theirs.samples[spec.task][number][spec.metric_name] for number in found.numbers]
            assert list(found.correct) == expected
        random.Random(seed).shuffle(pairs)
        _pairs_agree(
            lm.loglikelihood(_instances(pairs)), stock.loglikelihood(_instances(pairs), disable_tqdm=True), near
        )
