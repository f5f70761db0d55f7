import lm_eval.evaluator
import pytest
import torch

from core.errors import NonFiniteWeightsError, TaskError
from evaluation.lm import HuarizoLM
from evaluation.units import load_unit
from evaluation.whole import run


def test_progress_is_told_up_to_the_last_request(folders, model, tokenizer):
    told = []
    ran = run(
        HuarizoLM(model, tokenizer, tell=lambda *numbers: told.append(numbers)),
        load_unit("arc_easy", folders, num_fewshot=None),
    )
    requests = sum(
        len(doc["choices"]["text"])
        for doc in load_unit("arc_easy", folders, num_fewshot=None).tasks["arc_easy"].task_docs
    )
    assert told[-1] == (requests, requests) and ran.items == 14 and ran.seconds > 0
    assert "samples" not in ran.found and {score.metric for score in ran.scores} == {"acc", "acc_norm"}


def test_a_limit_above_the_documents_changes_no_fingerprint(folders, model, tokenizer):
    lm = HuarizoLM(model, tokenizer)

    def prints(limit):
        found = run(lm, load_unit("winogrande", folders, num_fewshot=1), limit=limit)
        return [(score.n, score.fingerprint) for score in found.scores]

    whole, over, part = prints(None), prints(99), prints(3)
    assert whole == over
    assert part[0][0] == 3 and part[0][1] != whole[0][1]


def test_the_fingerprint_tells_lengths_special_tokens_and_dtypes_apart(folders, make_model, tokenizer):
    options = [{}, {"max_length": 40}, {"add_bos": True}]
    lms = [HuarizoLM(make_model(), tokenizer, **each) for each in options]
    lms.append(HuarizoLM(make_model().to(torch.bfloat16), tokenizer))
    found = [run(lm, load_unit("winogrande", folders, num_fewshot=None)).scores[0].fingerprint for lm in lms]
    assert len(set(found)) == 4


def test_a_model_that_overflows_is_an_error_and_no_score(folders, make_model, tokenizer):
    broken = make_model()
    broken.lm_head.weight.data[5] = float("inf")
    with pytest.raises(NonFiniteWeightsError, match="try float32"):
        run(HuarizoLM(broken, tokenizer), load_unit("winogrande", folders, num_fewshot=None))


def test_prompts_that_the_model_has_no_tokens_for_are_an_error(folders, make_model, tokenizer):
    with pytest.raises(TaskError, match="vocabulary has 64 entries"):
        run(HuarizoLM(make_model(vocab_size=64), tokenizer), load_unit("winogrande", folders, num_fewshot=None))


def test_what_a_task_s_own_code_raises_is_a_task_error_and_nothing_stays_replaced(
    folders, model, tokenizer, monkeypatch
):
    unit = load_unit("winogrande", folders, num_fewshot=None)
    monkeypatch.setattr(unit.tasks["winogrande"], "process_results", lambda *_: 1 / 0)
    told = lm_eval.evaluator.add_env_info
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        run(HuarizoLM(model, tokenizer), unit)
    assert lm_eval.evaluator.add_env_info is told
