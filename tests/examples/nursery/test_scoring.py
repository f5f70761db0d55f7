import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from examples.nursery.corpus import SKILLS
from examples.nursery.scoring import Asked, Exam, asked_arc, asked_hella, asked_wino


def test_an_arc_item_is_asked_as_question_and_answer():
    item = {
        "question": "What is it like?",
        "choices": {"text": ["black and bold", "white and meek"], "label": ["A", "B"]},
        "answerKey": "B",
    }
    context = "Question: What is it like?\nAnswer:"
    assert asked_arc(item) == Asked(((context, " black and bold"), (context, " white and meek")), 1)


def test_a_winogrande_item_is_scored_on_the_text_after_the_blank():
    item = {
        "sentence": "Once the smith hit the chest since _ was hard.",
        "option1": "the chest",
        "option2": "the smith",
        "answer": "1",
    }
    start = "Once the smith hit the chest since"
    assert asked_wino(item) == Asked(((f"{start} the chest", " was hard."), (f"{start} the smith", " was hard.")), 0)


def test_a_hellaswag_item_is_asked_under_its_label_with_ctx_b_capitalised():
    item = {
        "activity_label": "Curing",
        "ctx_a": "Tota gutted the cod. Then she scaled it.",
        "ctx_b": "next she",
        "endings": ["salted it.", "packed it."],
        "label": "0",
    }
    context = "Curing: Tota gutted the cod. Then she scaled it. Next she"
    assert asked_hella(item) == Asked(((context, " salted it."), (context, " packed it.")), 0)


@pytest.mark.parametrize("skill", SKILLS)
def test_batched_sums_equal_one_request_at_a_time(smoke_family, skill):
    tokenizer = Tokenizer.from_file(str(smoke_family.base / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(smoke_family.base).eval()
    exam = Exam.read(smoke_family.tasks, skill, "validation", tokenizer, limit=5)
    one_by_one = []
    with torch.no_grad():
        for asked in exam.asked:
            for context, continuation in asked.choices:
                start = len(tokenizer.encode(context).ids)
                ids = torch.tensor([tokenizer.encode(context + continuation).ids])
                log_probs = model(ids).logits[0].log_softmax(-1)
                one_by_one.append(sum(float(log_probs[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
    assert exam.log_likelihoods(model).tolist() == pytest.approx(one_by_one, rel=1e-5)
