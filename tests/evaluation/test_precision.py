import copy

import pytest
import torch

from core.errors import OutOfMemoryError
from core.objective import TaskSpec
from core.outcomes import Outcomes
from evaluation.precision import Agreement, agreement, sample_agreement, widened
from evaluation.prepare import prepare
from evaluation.scorer import Scorer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(folders, tokenizer_folder):
    specs = [TaskSpec(task="arc_easy"), TaskSpec(task="winogrande")]
    return prepare(specs, tokenizer_folder, folders, max_length=512)


@pytest.fixture
def half(make_model):
    return make_model(3).to(torch.bfloat16)


def test_float32_of_a_half_model_is_another_model_with_the_same_weights_that_shares_what_it_shared(half):
    half.model.layers[1].mlp.up_proj.weight = half.model.layers[0].mlp.up_proj.weight
    wide = widened(half)
    assert (wide.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    for name, weight in half.named_parameters(remove_duplicate=False):
        assert torch.equal(wide.get_parameter(name), weight.float())
    assert wide.model.layers[1].mlp.up_proj.weight is wide.model.layers[0].mlp.up_proj.weight
    assert wide.lm_head.weight.data_ptr() != half.lm_head.weight.data_ptr()


def test_outcomes_unlike_those_of_float32_are_counted_over_the_documents_asked_for(half, prepared):
    exact = Scorer(prepared, device=CPU, dtype=torch.float32)
    truth = {task: exact.score(copy.deepcopy(half).float(), task, range(14)) for task in prepared.tasks}
    scorer = Scorer(prepared, device=CPU, dtype=torch.bfloat16)
    found = {task: ([3, 1, 9, 12], scorer.score(half, task, range(14))) for task in prepared.tasks}
    for task, counted in agreement(half, prepared, found).items():
        own = found[task][1]
        assert counted == (4, sum(own.correct[n] != truth[task].correct[n] for n in (1, 3, 9, 12)))
    # Two answers are turned round by hand.
    flipped = [(n, 1 - right if n in (1, 9) else right, m) for n, right, m in truth["arc_easy"].items()]
    seen = agreement(half, prepared, {"arc_easy": ([3, 1, 9, 12], Outcomes.of(flipped))})
    assert seen == {"arc_easy": Agreement(4, 2)}


def test_a_device_without_room_for_float32_says_so(half, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "float", full)
    with pytest.raises(OutOfMemoryError, match="no room for float32"):
        widened(half)


def test_samples_differ_where_any_judgement_does_and_those_without_one_are_left_out():
    one = [{"doc_id": n, "acc": a, "acc_norm": b} for n, (a, b) in enumerate([(1, 1), (0, 1), (1, 0)])]
    other = [{"doc_id": n, "acc": a, "acc_norm": b} for n, (a, b) in enumerate([(1, 1), (0, 0), (0, 0)])]
    pages = [{"doc_id": 0, "word_perplexity": (1.0, 2)}]
    assert sample_agreement({"t": one, "p": pages}, {"t": other, "p": pages}) == Agreement(3, 2)
