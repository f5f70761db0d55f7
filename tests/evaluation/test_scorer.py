import copy
import random

import numpy as np
import pytest
import torch

from core.errors import CancelledError, NonFiniteWeightsError, TaskError, UnknownTaskError
from core.objective import TaskSpec
from core.outcomes import Outcomes
from evaluation.catalog import LOCAL_TASKS
from evaluation.likelihood import LikelihoodReader
from evaluation.prepare import prepare
from evaluation.scorer import Scorer

CPU = torch.device("cpu")
ALL = (*LOCAL_TASKS, "riddles")


@pytest.fixture(scope="module")
def prepared(folders, tokenizer_folder):
    """All tasks by number of shots."""
    specs = {shots: [TaskSpec(task=name, num_fewshot=shots) for name in ALL] for shots in (0, 2)}
    return {shots: prepare(specs[shots], tokenizer_folder, folders, max_length=512) for shots in specs}


@pytest.fixture(scope="module")
def scorer(prepared):
    return Scorer(prepared[0], device=CPU, dtype=torch.float32)


def lengths(task, sample):
    """What each log-likelihood is divided by: characters of the choices under acc_norm."""
    metric = TaskSpec(task=task).metric_name
    if metric == "acc":
        return [1.0] * len(sample["arguments"])
    return [float(len(continuation) - 1) for _, continuation in sample["arguments"]]


@pytest.mark.parametrize("shots", [0, 2])
def test_outcomes_are_those_of_a_run_of_the_harness_document_by_document(shots, prepared, stock, model):
    scorer = Scorer(prepared[shots], device=CPU, dtype=torch.float32)
    run = stock(model, ALL, shots)
    for name in ALL:
        metric = TaskSpec(task=name).metric_name
        # The harness runs the registered task on its test split: canonical numbers 9 to 14.
        numbers = range(9, 15) if name == "riddles" else range(14)
        found = scorer.score(model, name, numbers)
        assert found.correct == tuple(int(sample[metric]) for sample in run.samples[name])
        assert sum(found.correct) / len(found) == pytest.approx(run.results[name][f"{metric},none"])
        for margin, sample, lls in zip(found.margins, run.samples[name], run.lls(name), strict=True):
            scores = np.array(lls) / lengths(name, sample)
            gold = int(sample["target"]) if name != "winogrande" else int(sample["doc"]["answer"]) - 1
            assert margin == pytest.approx(scores[gold] - np.delete(scores, gold).max(), abs=1e-4)


def test_the_search_side_of_a_task_with_its_own_splits_is_scored_as_that_split(prepared, stock, model):
    run = stock(model, ["riddles"], 2, split="search")
    found = Scorer(prepared[2], device=CPU, dtype=torch.float32).score(model, "riddles", range(9))
    assert found.correct == tuple(int(sample["acc"]) for sample in run.samples["riddles"])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("batch_tokens", "block_items"), [(1, 1), (64, 3), (10_000, 5), (300, 100)])
def test_neither_blocks_nor_budgets_nor_order_change_outcomes(name, batch_tokens, block_items, prepared, scorer, model):
    numbers = list(range(14))
    expected = scorer.score(model, name, numbers)
    random.Random(block_items).shuffle(numbers)
    other = Scorer(prepared[0], device=CPU, dtype=torch.float32, batch_tokens=batch_tokens)
    found = other.score(model, name, numbers, block_items=block_items)
    assert (found.numbers, found.correct) == (expected.numbers, expected.correct)
    assert found.margins == pytest.approx(expected.margins, abs=1e-5)


def test_some_documents_get_what_they_get_among_all(prepared, model):
    scorer = Scorer(prepared[2], device=CPU, dtype=torch.float32)
    everything = scorer.score(model, "hellaswag", range(14))
    some = scorer.score(model, "hellaswag", [11, 2, 7])
    assert some.correct == everything.select([2, 7, 11]).correct
    assert some.margins == pytest.approx(everything.select([2, 7, 11]).margins, abs=1e-5)


def test_new_weights_in_the_same_model_give_new_outcomes_and_nothing_of_the_old(scorer, make_model):
    resident, other = make_model(0), make_model(5)
    first = scorer.score(resident, "arc_easy", range(14))
    with torch.no_grad():
        for mine, new in zip(resident.parameters(), other.parameters(), strict=True):
            mine.copy_(new)
    swapped = scorer.score(resident, "arc_easy", range(14))
    assert swapped == scorer.score(other, "arc_easy", range(14))
    assert swapped.margins != first.margins
    assert scorer.score(make_model(0), "arc_easy", range(14)) == first


def test_what_all_prompts_begin_with_is_read_once_a_candidate_and_anew_for_other_weights(
    monkeypatch, folders, tokenizer_folder, make_model
):
    prepared = prepare(
        [TaskSpec(task="arc_easy", num_fewshot=3)], tokenizer_folder, folders, max_length=512, sampler="first_n"
    )
    scorer, resident, other = Scorer(prepared, device=CPU, dtype=torch.float32), make_model(0), make_model(5)
    read, real = [], LikelihoodReader._read_trunk
    monkeypatch.setattr(
        LikelihoodReader, "_read_trunk", lambda *args, **options: read.append(1) or real(*args, **options)
    )
    whole = [scorer.score(model, "arc_easy", range(12)) for model in (resident, other)]
    read.clear()
    first = scorer.score(resident, "arc_easy", range(12), block_items=4)
    with torch.no_grad():
        for mine, new in zip(resident.parameters(), other.parameters(), strict=True):
            mine.copy_(new)
    second = scorer.score(resident, "arc_easy", range(12), block_items=4)
    assert len(read) == 2
    for blocks, expected in zip((first, second), whole, strict=True):
        assert blocks.correct == expected.correct
        assert blocks.margins == pytest.approx(expected.margins, abs=1e-5)


def test_blocks_are_handed_over_in_the_order_asked_for(scorer, model):
    blocks = []
    numbers = [13, 0, 5, 6, 1, 2, 9]
    found = scorer.score(model, "winogrande", numbers, on_block=blocks.append, block_items=3)
    assert [block.numbers for block in blocks] == [(0, 5, 13), (1, 2, 6), (9,)]
    union = Outcomes.empty()
    for block in blocks:
        union = union | block
    assert union == found


def test_cancelling_keeps_the_blocks_already_handed_over(scorer, model):
    blocks = []
    with pytest.raises(CancelledError):
        scorer.score(
            model, "winogrande", range(14), cancelled=lambda: len(blocks) == 2, on_block=blocks.append, block_items=4
        )
    assert [len(block) for block in blocks] == [4, 4]


def test_no_documents_give_no_outcomes(scorer, model):
    assert scorer.score(model, "winogrande", []) == Outcomes.empty()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_overflow_fail_the_trial_with_task_and_document(value, scorer, model):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[3, 3] = value
    with pytest.raises(NonFiniteWeightsError, match="document 4 of task 'arc_easy'") as caught:
        scorer.score(broken, "arc_easy", [4, 7])
    assert caught.value.where == "arc_easy:4"


@pytest.mark.parametrize("numbers", [[14], [-1], [3, 3]])
def test_numbers_outside_the_task_or_named_twice_are_refused(numbers, scorer, model):
    with pytest.raises(ValueError, match="0 to 13, each once"):
        scorer.score(model, "winogrande", numbers)


def test_a_task_that_was_not_prepared_is_refused(scorer, model):
    with pytest.raises(UnknownTaskError, match="did you mean 'riddles'"):
        scorer.score(model, "riddle", [0])


def test_a_model_of_another_dtype_is_refused(scorer, model):
    with pytest.raises(ValueError, match=r"float32 but the model is torch\.bfloat16"):
        scorer.score(copy.deepcopy(model).to(torch.bfloat16), "winogrande", [0])


def test_a_vocabulary_without_the_prompts_tokens_is_refused(scorer, make_model):
    with pytest.raises(TaskError, match="vocabulary has 64 entries"):
        scorer.score(make_model(vocab_size=64), "winogrande", [0])


def test_bfloat16_outcomes_are_finite_and_mostly_agree_with_float32(prepared, scorer, model):
    half = Scorer(prepared[0], device=CPU, dtype=torch.bfloat16)
    found = half.score(copy.deepcopy(model).to(torch.bfloat16), "arc_easy", range(14))
    exact = scorer.score(model, "arc_easy", range(14))
    assert sum(a == b for a, b in zip(found.correct, exact.correct, strict=True)) >= 12
    assert np.abs(np.subtract(found.margins, exact.margins)).mean() < 0.1


def test_global_random_states_are_left_alone(scorer, model):
    def states():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    scorer.score(model, "hellaswag", range(14))
    assert states() == before
